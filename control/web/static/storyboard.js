// The storyboard: pictures of the replay, many to a sheet, addressed by a WebVTT file
// (`sheet.jpg#xywh=x,y,width,height`, W3C Media Fragments).

const SPAN = /^(?:(\d+):)?(\d{2}):(\d{2})\.(\d{3})\s+-->\s+(?:(\d+):)?(\d{2}):(\d{2})\.(\d{3})/;
const TILE = /^(.+)#xywh=(?:pixel:)?(\d+),(\d+),(\d+),(\d+)$/;

/** @returns {{start: number, end: number, sheet: string, x: number, y: number, width: number, height: number}[]} */
export function parseStoryboard(text, base) {
  const cues = [];
  let span = null;
  for (const line of text.split(/\r\n|\r|\n/)) {
    const times = SPAN.exec(line);
    if (times) {
      span = [seconds(times.slice(1, 5)), seconds(times.slice(5, 9))];
      continue;
    }
    const tile = span && TILE.exec(line.trim());
    if (tile) {
      const [x, y, width, height] = tile.slice(2).map(Number);
      cues.push({ start: span[0], end: span[1], sheet: new URL(tile[1], base).href, x, y, width, height });
      span = null;
    }
  }
  return cues;
}

export class Storyboard {
  constructor(cues) {
    this.cues = cues;
    this.sheets = new Map();
  }

  static async load(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`storyboard: ${answer.status}`);
    return new Storyboard(parseStoryboard(await answer.text(), answer.url));
  }

  /** The picture at a time: the cue that covers it, else the nearest before. */
  at(time) {
    let low = 0;
    let high = this.cues.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.cues[middle].start <= time) low = middle;
      else high = middle - 1;
    }
    return this.cues[low];
  }

  /** The cue's sheet once it is loaded, null until then; `then` is called when it is. */
  sheet(cue, then) {
    let entry = this.sheets.get(cue.sheet);
    if (!entry) {
      const image = new Image();
      entry = { image, ready: false };
      this.sheets.set(cue.sheet, entry);
      image.onload = () => {
        entry.ready = true;
        then();
      };
      image.onerror = () => this.sheets.delete(cue.sheet); // asked for again on the next hover
      image.src = cue.sheet;
    }
    return entry.ready ? entry.image : null;
  }
}

function seconds([hours, minutes, whole, thousandths]) {
  return Number(hours || 0) * 3600 + Number(minutes) * 60 + Number(whole) + Number(thousandths) / 1000;
}
