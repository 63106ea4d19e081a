// The only module that talks to the server. Says on the page when the server is away, and when it is back.

const banner = document.getElementById("offline");

function away(message) {
  if (!banner) return;
  banner.textContent = message;
  banner.hidden = !message;
}

async function get(address, kind) {
  let response;
  try {
    response = await fetch(address, {
      headers: { Accept: kind },
      credentials: "same-origin",
      signal: AbortSignal.timeout(20000),
    });
  } catch (error) {
    away("The server can't be reached. Trying again; what you see is from before.");
    throw error;
  }
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (response.status >= 500) away("The server has trouble. Trying again; what you see is from before.");
  else away("");
  if (!response.ok) {
    let message = `The server answered ${response.status}.`;
    try {
      message = (await response.json()).error.message;
    } catch {
      // not our JSON: the status says enough
    }
    throw new Error(message);
  }
  return response;
}

export async function getJson(address) {
  return (await get(address, "application/json")).json();
}

export async function getText(address) {
  return (await get(address, "text/html")).text();
}
