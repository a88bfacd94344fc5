// How the replay is coming on: asks the server until there is nothing more to ask.

const EVERY_MS = 1000;
const AFTER_FAILURE_MS = 10_000;

const FAILURES = {
  failed: ["This replay could not be made", "Something was wrong with the recording."],
  cancelled: ["This replay was cancelled", "It will not be made unless it is asked for again."],
  removing: ["This replay is no longer kept", "It was removed, as old ones are."],
  removed: ["This replay is no longer kept", "It was removed, as old ones are."],
};
const REASONS = {
  "recording-missing": "The recording was not found.",
  "recording-empty": "The recording is empty.",
  "recording-not-media": "The recording is not a video that can be read.",
  "recording-without-video": "The recording has no picture.",
  "recording-refused": "The recording may not be used.",
  "recording-outside-roots": "The recording may not be used.",
  "recording-too-large": "The recording is too large.",
};

/** Calls `on.status(status)` with each answer, `on.expired()` once the link ends. */
export function followStatus(on) {
  let misses = 0;
  async function ask() {
    let wait = EVERY_MS;
    try {
      const answer = await fetch("status", { cache: "no-store" });
      if (answer.status === 403 || answer.status === 410) return on.expired();
      if (!answer.ok) throw new Error(`status: ${answer.status}`);
      misses = 0;
      const status = await answer.json();
      on.status(status);
      if (status.state === "completed") return undefined;
      if (status.state in FAILURES) wait = AFTER_FAILURE_MS; // somebody may try it again
    } catch (error) {
      misses += 1;
      wait = Math.min(EVERY_MS * 2 ** misses, AFTER_FAILURE_MS);
      on.missed?.(error);
    }
    return setTimeout(ask, wait);
  }
  ask();
}

/** Heading and detail to show where there is nothing to play yet, or never will be. */
export function describe(status) {
  const failure = FAILURES[status.state];
  if (failure) {
    const [heading, detail] = failure;
    const reason = REASONS[status.problem] ?? detail;
    return { failed: true, heading, detail: status.problem ? `${reason} (${status.problem})` : reason };
  }
  if (status.state === "live") {
    return { failed: false, heading: "The stream is still on", detail: "Its replay will be here when it ends." };
  }
  return { failed: false, heading: "The replay is being made", detail: "It starts by itself as soon as there is something to see." };
}
