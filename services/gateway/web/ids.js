// Ids that this browser makes, and the person's own, which stays in this browser.

const USER = "thumbloop.user";

/** A random id: 128 bits in hex. (`crypto.randomUUID` is missing where a page is not served over TLS or localhost.) */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The person's id, made at the first visit. The gateway stores a keyed hash of it alone. */
export function userId() {
  let id = localStorage.getItem(USER);
  if (!id) {
    id = `visitor-${randomId().slice(0, 12)}`;
    localStorage.setItem(USER, id);
  }
  return id;
}

/** Keeps another id. */
export function keepUserId(id) {
  localStorage.setItem(USER, id);
}
