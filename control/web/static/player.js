// The player page: wires the video, its controls and the replay's status together.

import { clock, remaining } from "./clock.js";
import { Engine } from "./engine.js";
import { describe, followStatus } from "./making.js";
import { SeekBar } from "./seekbar.js";
import { Storyboard } from "./storyboard.js";

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const video = $("video");
const IDLE_MS = 3000;

/** What happened so far, for tests and for support. */
const report = {
  engine: null,
  view: "loading",
  status: null,
  levels: [],
  level: null,
  levelSwitches: [],
  playlist: null,
  segmentsBuffered: 0,
  hlsErrors: [],
  pageErrors: [],
  storyboardCues: 0,
};
window.__afterlive = report;
window.addEventListener("error", (event) => report.pageErrors.push(String(event.message)));
window.addEventListener("unhandledrejection", (event) => report.pageErrors.push(String(event.reason)));

let loaded = false;
const engine = new Engine(video, report, {
  levels: offerLevels,
  level: showLevel,
  grown: () => refresh(),
  paused: () => play(), // by the engine, not by whoever watches
  fatal: (kind) => refuse(...FATAL[kind]),
});
const FATAL = {
  unsupported: ["This browser cannot play the replay", "It knows neither HLS nor Media Source Extensions."],
  network: ["The connection was lost", "Reload the page to try again."],
  media: ["The replay cannot be played here", "The browser could not decode it."],
  expired: ["This link has expired", "Ask for a new one where you found it."],
};
const seekBar = new SeekBar(
  {
    bar: $("seek"),
    buffered: $("buffered"),
    played: $("played"),
    thumb: $("thumb"),
    box: $("preview"),
    picture: $("preview-picture"),
    at: $("preview-time"),
  },
  { range, now: () => video.currentTime, seek: (time) => { video.currentTime = time; begun(); } },
);

followStatus({ status: onStatus, expired: () => loaded || refuse(...FATAL.expired) });
listen();

// --- status --------------------------------------------------------------------------------------

function onStatus(status) {
  const first = report.status === null;
  report.status = status;
  const done = status.state === "completed";
  if (status.poster && !video.poster) video.poster = status.poster;
  if (status.storyboard && !seekBar.storyboard) loadStoryboard(status.storyboard);
  if (status.playable && !loaded) {
    loaded = true;
    show("ready");
    engine.load(status.playlist);
    // Somebody who waited for it sees it begin; somebody who opens a finished replay decides when.
    if (!done || !first) autoplay();
  }
  const { failed, heading, detail } = describe(status);
  if (!loaded) tell(failed ? "failed" : "waiting", heading, failed ? detail : progressText(status) || detail, status.progress);
  $("making").hidden = !loaded || done;
  $("making-progress").hidden = failed;
  $("making-progress").value = status.progress;
  $("making-detail").textContent = failed ? `${heading}. ${detail}` : `Still being made: ${progressText(status)}`;
}

function progressText(status) {
  if (!status.progress) return "";
  return [`${Math.floor(status.progress * 100)} %`, remaining(status.eta_seconds)].filter(Boolean).join(" · ");
}

function tell(view, heading, detail, progress = null) {
  show(view);
  $("message-heading").textContent = heading;
  $("message-detail").textContent = detail;
  const bar = $("message-progress");
  bar.hidden = view !== "waiting";
  if (progress) bar.value = progress;
  else bar.removeAttribute("value");
}

function refuse(heading, detail) {
  loaded = true; // there is nothing to try again by itself
  video.pause();
  tell("failed", heading, detail);
}

function show(view) {
  report.view = view;
  stage.dataset.view = view;
}

async function loadStoryboard(url) {
  seekBar.storyboard = new Storyboard([]); // asked for once
  try {
    seekBar.storyboard = await Storyboard.load(url);
    report.storyboardCues = seekBar.storyboard.cues.length;
  } catch (error) {
    console.warn("no storyboard", error);
  }
}

// --- playing -------------------------------------------------------------------------------------

async function play() {
  begun();
  try {
    await video.play();
  } catch (error) {
    if (error.name !== "AbortError") throw error; // a pause came in between
  }
}

async function autoplay() {
  begun();
  try {
    await video.play();
  } catch (error) {
    if (error.name !== "NotAllowedError") return;
    // The browser wants a gesture before there is sound.
    video.muted = true;
    $("unmute").hidden = false;
    try {
      await video.play();
    } catch {
      delete stage.dataset.begun; // not even without sound: the big button waits
    }
  }
}

function begun() {
  stage.dataset.begun = "";
}

function toggle() {
  if (video.paused || video.ended) play();
  else video.pause();
}

/** What can be sought, in seconds. It grows while the replay is being made. */
function range() {
  const { seekable, duration } = video;
  const end = Number.isFinite(duration) ? duration : seekable.length ? seekable.end(seekable.length - 1) : 0;
  return { start: 0, end };
}

function bufferedUntil() {
  const { buffered, currentTime } = video;
  for (let index = 0; index < buffered.length; index += 1) {
    if (buffered.start(index) <= currentTime + 0.1 && currentTime <= buffered.end(index)) return buffered.end(index);
  }
  return 0;
}

function refresh() {
  $("now").textContent = clock(video.currentTime);
  $("length").textContent = clock(range().end);
  seekBar.show(bufferedUntil());
}

// --- quality -------------------------------------------------------------------------------------

function offerLevels(levels) {
  const best = [...levels].sort((a, b) => b.index - a.index);
  const options = [{ index: -1, label: "Auto" }, ...best];
  $("quality").replaceChildren(...options.map(({ index, label }) => new Option(label, String(index))));
  $("quality").value = "-1";
  $("quality-menu").hidden = levels.length === 0;
}

function showLevel(level, auto) {
  const menu = $("quality");
  const name = [...menu.options].find((option) => option.value === String(level))?.text;
  menu.options[0].text = auto && name ? `Auto (${name})` : "Auto";
}

// --- controls ------------------------------------------------------------------------------------

function listen() {
  $("start").addEventListener("click", play);
  $("play").addEventListener("click", toggle);
  $("mute").addEventListener("click", toggleMute);
  $("unmute").addEventListener("click", () => (video.muted = false));
  $("volume").addEventListener("input", (event) => {
    video.volume = Number(event.target.value);
    video.muted = video.volume === 0;
  });
  $("speed").addEventListener("change", (event) => (video.playbackRate = Number(event.target.value)));
  $("quality").addEventListener("change", (event) => engine.choose(Number(event.target.value)));
  $("fullscreen").addEventListener("click", toggleFullscreen);
  for (const name of ["timeupdate", "progress", "durationchange", "seeking", "seeked"]) video.addEventListener(name, refresh);
  for (const name of ["play", "pause", "ended"]) video.addEventListener(name, showPlaying);
  video.addEventListener("volumechange", showVolume);
  video.addEventListener("loadedmetadata", showShape);
  video.addEventListener("click", () => (matchMedia("(hover: none)").matches ? wakeUp() : toggle()));
  video.addEventListener("dblclick", toggleFullscreen);
  document.addEventListener("fullscreenchange", () =>
    $("fullscreen").setAttribute("aria-label", document.fullscreenElement ? "Leave full screen" : "Full screen"),
  );
  document.addEventListener("keydown", shortcut);
  for (const name of ["pointermove", "pointerdown", "keydown", "focusin"]) stage.addEventListener(name, wakeUp);
}

function showPlaying() {
  const playing = !video.paused && !video.ended;
  stage.toggleAttribute("data-playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  wakeUp();
}

function showVolume() {
  const muted = video.muted || video.volume === 0;
  stage.toggleAttribute("data-muted", muted);
  $("mute").setAttribute("aria-label", muted ? "Turn sound on" : "Mute");
  $("volume").value = muted ? 0 : video.volume;
  if (!muted) $("unmute").hidden = true;
}

function toggleMute() {
  video.muted = !video.muted;
  if (!video.muted && video.volume === 0) video.volume = 1;
}

/** A portrait replay gets a stage of its own shape, no higher than the window. */
function showShape() {
  const { videoWidth: width, videoHeight: height } = video;
  if (height > width) {
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.style.maxHeight = "calc(100vh - 9rem)";
    stage.style.marginInline = "auto";
    stage.style.maxWidth = `calc((100vh - 9rem) * ${width} / ${height})`;
    stage.style.minWidth = "min(100%, 22rem)";
  }
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen();
  else video.webkitEnterFullscreen?.(); // iPhones give full screen to the video alone
}

function shortcut(event) {
  const busy = event.target.closest?.("input, select, textarea");
  if (busy || event.altKey || event.ctrlKey || event.metaKey || report.view !== "ready") return;
  const onButton = event.target.closest?.("button");
  const action = {
    " ": onButton ? null : toggle, // a focused button has the space bar to itself
    k: toggle,
    m: toggleMute,
    f: toggleFullscreen,
    ArrowLeft: () => seekBar.key(event),
    ArrowRight: () => seekBar.key(event),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

let idleTimer = 0;
function wakeUp() {
  delete stage.dataset.idle;
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => {
    const busy = stage.querySelector(".controls :focus-visible, .controls:hover") || seekBar.dragging;
    if (!video.paused && !busy) stage.dataset.idle = "";
  }, IDLE_MS);
}
