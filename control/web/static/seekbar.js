// The seek bar: a slider for pointer, touch and keyboard, with a picture of where it would lead.

import { clock, spoken } from "./clock.js";

const STEP_SECONDS = 5;
const PAGE_SECONDS = 30;
const WIDEST_PREVIEW = 200;

export class SeekBar {
  /** `range()` gives {start, end} in seconds; `seek(seconds)` goes there. */
  constructor(elements, { range, now, seek }) {
    Object.assign(this, elements);
    Object.assign(this, { range, now, goTo: seek });
    this.storyboard = null;
    this.dragging = false;
    this.listen();
  }

  listen() {
    const { bar } = this;
    bar.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      bar.setPointerCapture(event.pointerId);
      this.dragging = true;
      this.follow(event);
    });
    bar.addEventListener("pointermove", (event) => this.follow(event));
    bar.addEventListener("pointerup", (event) => {
      if (!this.dragging) return;
      this.dragging = false;
      this.goTo(this.timeAt(event));
      if (event.pointerType !== "mouse") this.hide();
    });
    bar.addEventListener("pointercancel", () => {
      this.dragging = false;
      this.hide();
      this.show();
    });
    bar.addEventListener("pointerleave", () => this.dragging || this.hide());
    bar.addEventListener("keydown", (event) => this.key(event));
    bar.addEventListener("focus", () => bar.matches(":focus-visible") && this.preview(this.now()));
    bar.addEventListener("blur", () => this.hide());
  }

  follow(event) {
    const time = this.timeAt(event);
    this.preview(time);
    if (this.dragging) this.draw(time);
  }

  key(event) {
    const { start, end } = this.range();
    const now = this.now();
    const target = {
      ArrowRight: now + STEP_SECONDS,
      ArrowUp: now + STEP_SECONDS,
      ArrowLeft: now - STEP_SECONDS,
      ArrowDown: now - STEP_SECONDS,
      PageUp: now + PAGE_SECONDS,
      PageDown: now - PAGE_SECONDS,
      Home: start,
      End: end,
    }[event.key];
    if (target === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const time = Math.min(Math.max(target, start), end);
    this.goTo(time);
    this.preview(time);
  }

  timeAt(event) {
    const { start, end } = this.range();
    const box = this.bar.getBoundingClientRect();
    const part = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return start + part * (end - start);
  }

  /** Draws the bar as it stands: where playback is and what is buffered around it. */
  show(bufferedUntil = 0) {
    const { start, end } = this.range();
    this.buffered.style.transform = `scaleX(${share(bufferedUntil, start, end)})`;
    if (!this.dragging) this.draw(this.now());
  }

  draw(time) {
    const { start, end } = this.range();
    const part = share(time, start, end);
    this.played.style.transform = `scaleX(${part})`;
    this.thumb.style.left = `${part * 100}%`;
    this.bar.setAttribute("aria-valuemin", start.toFixed(0));
    this.bar.setAttribute("aria-valuemax", end.toFixed(0));
    this.bar.setAttribute("aria-valuenow", time.toFixed(0));
    this.bar.setAttribute("aria-valuetext", `${spoken(time)} of ${spoken(end)}`);
  }

  preview(time) {
    const { start, end } = this.range();
    if (!(end > start)) return;
    this.box.hidden = false;
    this.box.dataset.seconds = time.toFixed(3);
    this.at.textContent = clock(time);
    this.drawPicture(time);
    const room = this.bar.clientWidth;
    const half = this.box.offsetWidth / 2;
    const centre = Math.min(Math.max(share(time, start, end) * room, half), Math.max(room - half, half));
    this.box.style.transform = `translateX(${centre - half}px)`;
  }

  drawPicture(time) {
    const cue = this.storyboard?.at(time);
    const again = () => !this.box.hidden && this.preview(Number(this.box.dataset.seconds));
    const image = cue && this.storyboard.sheet(cue, again);
    this.picture.hidden = !image;
    if (!image) return;
    const scale = Math.min(1, WIDEST_PREVIEW / cue.width, (this.bar.clientWidth * 0.45) / cue.width);
    const style = this.picture.style;
    style.width = `${cue.width * scale}px`;
    style.height = `${cue.height * scale}px`;
    style.backgroundImage = `url("${cue.sheet}")`;
    style.backgroundSize = `${image.naturalWidth * scale}px ${image.naturalHeight * scale}px`;
    style.backgroundPosition = `${-cue.x * scale}px ${-cue.y * scale}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

function share(time, start, end) {
  return end > start ? Math.min(Math.max((time - start) / (end - start), 0), 1) : 0;
}
