// The only module that talks to the server. Says on the page when the server is away, and when it is back.

const banner = document.getElementById("offline");

function away(message) {
  if (!banner) return;
  banner.textContent = message;
  banner.hidden = !message;
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, {
      ...options,
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
  return (await ask(address, { headers: { Accept: "application/json" } })).json();
}

export async function getText(address) {
  return (await ask(address, { headers: { Accept: "text/html" } })).text();
}

/** Let the server change something: `method` ("POST", "DELETE") at `address`, with a JSON body where one is given. */
export async function send(method, address, body = null) {
  const headers = { Accept: "application/json", "X-Trainvitals": "1" };
  if (body) headers["Content-Type"] = "application/json";
  return (await ask(address, { method, headers, body: body && JSON.stringify(body) })).json();
}
