// What the demo's pages share: a WebSocket that comes back, and a few lines around the DOM.
const demo = {
  // Closed for good by decision: not logged in, not allowed, not there.
  FINAL: [4401, 4403, 4404],

  connect(path, onMessage) {
    // ws or wss as the page itself came.
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
    const status = document.getElementById("status");
    let socket, delay = 250;
    const open = () => {
      socket = new WebSocket(url);
      socket.onopen = () => { status.textContent = "connected"; };
      // A server that accepts and then fails is no reason to come back sooner; one that speaks is.
      socket.onmessage = (event) => { delay = 250; onMessage(event.data); };
      socket.onclose = (event) => {
        if (demo.FINAL.includes(event.code)) { status.textContent = "closed"; return; }
        status.textContent = "reconnecting";
        // Full jitter: clients of a server that restarts do not all come back at once.
        setTimeout(open, Math.random() * delay);
        delay = Math.min(delay * 2, 30000);
      };
    };
    open();
    return { send: (data) => socket.readyState === WebSocket.OPEN && (socket.send(data), true) };
  },

  element(name, text) {
    const element = document.createElement(name);
    element.textContent = text;
    return element;
  },

  append(id, element, before = null) {
    document.getElementById(id).insertBefore(element, before);
    element.scrollIntoView({ block: "nearest" });
  },

  onSubmit(form, input, send) {
    document.getElementById(form).onsubmit = (event) => {
      event.preventDefault();
      const field = document.getElementById(input);
      // What could not be sent stays in the field.
      if (field.value && send(field.value)) field.value = "";
    };
  },
};
