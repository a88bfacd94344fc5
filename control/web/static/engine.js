// What plays HLS: hls.js where it is here and the browser has Media Source Extensions, else the browser itself.

const MOST_RECOVERIES = 3;

export class Engine {
  /** `report` collects what happens; `on` = {levels(list), level(index), paused(), fatal(kind)}. */
  constructor(video, report, on) {
    Object.assign(this, { video, report, on });
    this.hls = null;
    this.recoveries = 0;
  }

  load(url) {
    const Hls = window.Hls;
    if (Hls?.isSupported()) this.loadWithHls(Hls, url);
    else if (this.video.canPlayType("application/vnd.apple.mpegurl")) this.loadNatively(url);
    else this.on.fatal("unsupported");
  }

  loadNatively(url) {
    this.report.engine = "native";
    this.video.addEventListener("error", () => this.on.fatal("media"));
    // A growing playlist would start near its end; a replay starts at its beginning.
    this.video.addEventListener("loadedmetadata", () => (this.video.currentTime = 0), { once: true });
    this.video.src = url;
  }

  loadWithHls(Hls, url) {
    this.report.engine = `hls.js ${Hls.version}`;
    const hls = new Hls({
      startPosition: 0, // a growing (EVENT) playlist would otherwise start near its end
      workerPath: new URL("hls.worker.js", import.meta.url).href,
      capLevelToPlayerSize: true,
      backBufferLength: 90,
    });
    this.hls = hls;
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      this.report.levels = hls.levels.map(({ width, height, bitrate }) => ({ width, height, bitrate }));
      this.on.levels(hls.levels.map((level, index) => ({ index, label: label(level, hls.levels) })));
    });
    hls.on(Hls.Events.LEVEL_SWITCHED, (_, { level }) => {
      this.report.level = level;
      this.report.levelSwitches.push(level);
      this.on.level(level, hls.autoLevelEnabled);
    });
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      this.report.playlist = { live: details.live, type: details.type, seconds: details.totalduration };
      this.on.grown?.();
    });
    hls.on(Hls.Events.FRAG_BUFFERED, () => {
      this.report.segmentsBuffered += 1;
    });
    hls.on(Hls.Events.ERROR, (_, data) => this.failed(Hls, data));
    hls.loadSource(url);
    hls.attachMedia(this.video);
  }

  failed(Hls, { type, details, fatal, response, error }) {
    this.report.hlsErrors.push({ type, details, fatal, status: response?.code ?? null, text: String(error ?? "") });
    if (!fatal) return;
    if (response?.code === 403 || response?.code === 410) {
      this.on.fatal("expired");
    } else if (this.recoveries >= MOST_RECOVERIES) {
      this.on.fatal(type === Hls.ErrorTypes.NETWORK_ERROR ? "network" : "media");
    } else {
      this.recoveries += 1;
      if (type === Hls.ErrorTypes.MEDIA_ERROR) this.hls.recoverMediaError();
      else setTimeout(() => this.restart(response?.code === 404), 1000 * 2 ** this.recoveries);
    }
  }

  /** `gone`: what was being played is not there any more, as another encoder made the replay anew in other folders. */
  restart(gone) {
    if (this.hls.levels.length && !gone) {
      this.hls.startLoad(this.video.currentTime);
      return;
    }
    if (gone) {
      this.hls.config.startPosition = this.video.currentTime;
      // A new source is paused.
      if (!this.video.paused) this.video.addEventListener("canplay", () => this.on.paused(), { once: true });
    }
    // Without levels the master playlist itself never arrived.
    this.hls.loadSource(this.hls.url);
  }

  /** -1 lets the bandwidth decide. Takes effect with the next segment, without a break. */
  choose(level) {
    if (this.hls) this.hls.nextLevel = level;
  }
}

function label({ width, height, frameRate, bitrate }, all) {
  const short = Math.min(width, height);
  const name = short ? `${short}p${frameRate > 31 ? Math.round(frameRate) : ""}` : `${Math.round(bitrate / 1000)} kbit/s`;
  const twins = all.filter((other) => Math.min(other.width, other.height) === short).length > 1;
  return twins && short ? `${name} · ${(bitrate / 1e6).toFixed(1)} Mbit/s` : name;
}
