// How things are called and written on the page.

/** "p-0001-000003-1a2b3c4d" is "v3"; "rm-..." is "r3"; anything else stays. */
export function shortVersion(version) {
  const match = /^(p|rm)-\d+-(\d+)-/.exec(version ?? "");
  return match ? `${match[1] === "p" ? "v" : "r"}${Number(match[2])}` : version || "–";
}

/** A colour of its own for each version, so that a change is seen at a glance: neighbours lie far apart. */
export function versionHue(version) {
  const match = /^(?:p|rm)-\d+-(\d+)-/.exec(version ?? "");
  return match ? (18 + Number(match[1]) * 137.5) % 360 : 220;
}

/** "just now", "5 min ago", "14:02". */
export function ago(seconds, now = Date.now() / 1000) {
  const age = Math.max(0, now - seconds);
  if (age < 10) return "just now";
  if (age < 60) return `${Math.round(age)} s ago`;
  if (age < 3600) return `${Math.round(age / 60)} min ago`;
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

/** "67 %", or a dash. */
export function percent(share) {
  return share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`;
}

/** Two digits that matter, or a dash. */
export function figure(value) {
  return value === null || value === undefined ? "–" : String(Number(value.toPrecision(2)));
}

const PHASES = {
  waiting_for_experience: "Waiting for more answers and thumbs",
  training_reward_model: "Learning what people like",
  rescoring: "Scoring answers again",
  updating_policy: "Improving the model",
  gating: "Checking the candidate",
  releasing: "Publishing a release",
};

/** What the learner does, in words. */
export function phaseWords(phase) {
  return PHASES[phase] ?? (phase ? phase.replaceAll("_", " ") : "Starting");
}
