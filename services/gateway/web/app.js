// The chat page: puts the parts together and holds what they share.

import { html, render, useEffect, useRef, useState } from "/web/vendor/htm-preact.js";
import { modelName, watchReleases, whenKeyRefused } from "/web/api.js";
import { useChat } from "/web/chat.js";
import { Composer } from "/web/parts/composer.js";
import { Header } from "/web/parts/header.js";
import { KeyPrompt } from "/web/parts/key.js";
import { Message } from "/web/parts/message.js";
import { Releases } from "/web/parts/releases.js";
import { Welcome } from "/web/parts/welcome.js";
import { keepUserId, userId } from "/web/ids.js";

function App() {
  const [model, setModel] = useState("thumbloop");
  const [settings, setSettings] = useState({ user: userId(), temperature: 0.8, maxTokens: 128 });
  const [picture, setPicture] = useState({ connected: true, data: null });
  const [panelOpen, setPanelOpen] = useState(false);
  const [keyWanted, setKeyWanted] = useState("");
  const [keysKept, setKeysKept] = useState(0);
  const chat = useChat(model, settings);

  useEffect(() => {
    whenKeyRefused(setKeyWanted);
    modelName().then(setModel, () => {});
    return watchReleases((data) =>
      setPicture((last) => (data ? { connected: true, data } : { connected: false, data: last.data })),
    );
  }, [keysKept]);
  useEffect(() => {
    const onKey = (event) => event.key === "Escape" && (chat.busy ? chat.stop() : setPanelOpen(false));
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [chat.busy]);

  const takeKey = () => {
    setKeyWanted("");
    setKeysKept(keysKept + 1);
  };
  const change = (changes) => {
    if (changes.user) keepUserId(changes.user);
    setSettings((old) => ({ ...old, ...changes }));
  };
  return html`
    <div class="frame">
      <${Header} picture=${picture} onNew=${chat.clear} onPanel=${() => setPanelOpen(!panelOpen)} panelOpen=${panelOpen}
        canClear=${chat.turns.length > 0} />
      <main class="chat">
        <${Log} turns=${chat.turns}>
          ${chat.turns.length === 0 && html`<${Welcome} onAsk=${chat.ask} />`}
          ${chat.turns.map(
            (turn, index) =>
              html`<${Message} key=${turn.id} turn=${turn} onRetry=${index === chat.turns.length - 1 ? chat.retry : null}
                onThumb=${(value) => chat.thumb(turn.id, value)} />`,
          )}
        <//>
        ${keyWanted && html`<${KeyPrompt} why=${keyWanted} onKept=${takeKey} />`}
        <${Composer} busy=${chat.busy} onSend=${chat.ask} onStop=${chat.stop} />
      </main>
      <${Releases} picture=${picture} open=${panelOpen} onClose=${() => setPanelOpen(false)} settings=${settings}
        onChange=${change} />
    </div>
  `;
}

/** The conversation; keeps its end in view, unless the person has scrolled up to read. */
function Log({ turns, children }) {
  const box = useRef(null);
  const follows = useRef(true);
  useEffect(() => {
    if (follows.current) box.current.scrollTop = box.current.scrollHeight;
  });
  const onScroll = () => {
    const { scrollTop, clientHeight, scrollHeight } = box.current;
    follows.current = scrollTop + clientHeight > scrollHeight - 80;
  };
  const busy = turns.at(-1)?.state === "streaming";
  return html`
    <div class="log" ref=${box} onScroll=${onScroll} role="log" aria-label="Conversation" aria-busy=${busy} tabindex="0">
      <div class="log-inner">${children}</div>
    </div>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
