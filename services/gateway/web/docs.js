// The API's documentation, drawn from /openapi.json, without anything from elsewhere.

import { html, render } from "/web/vendor/htm-preact.js";

const METHODS = ["get", "post", "delete"];

function resolve(description, schema) {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? description.components.schemas[name] : (schema ?? {});
}

function typeWords(description, schema) {
  const parts = schema.anyOf ?? [schema];
  return parts
    .map((part) => {
      if (part.$ref) return resolve(description, part).title ?? "object";
      if (part.type === "array") return `list of ${typeWords(description, part.items ?? {})}`;
      return part.const !== undefined ? JSON.stringify(part.const) : (part.type ?? "any");
    })
    .filter((word) => word !== "null")
    .join(" or ");
}

/** A command that works as it stands against this gateway. */
function curl(method, path, operation, example) {
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${location.origin}${path}`];
  for (const parameter of operation.parameters ?? []) {
    if (parameter.in === "header" && parameter.name === "authorization") lines.push(`-H 'Authorization: Feedback TOKEN'`);
  }
  if (operation.security?.length) lines.push(`-H 'Authorization: Bearer API_KEY'`);
  if (example) lines.push(`-H 'Content-Type: application/json'`, `-d '${JSON.stringify(example)}'`);
  return lines.join(" \\\n  ");
}

/** Text with `code` in it. */
function Words({ text }) {
  return (text ?? "").split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));
}

function Fields({ description, schema }) {
  const required = new Set(schema.required ?? []);
  return html`
    <table>
      <tbody>
        ${Object.entries(schema.properties ?? {}).map(
          ([name, field]) => html`<tr>
            <th scope="row"><code>${name}</code>${required.has(name) && html`<em>required</em>`}</th>
            <td>${typeWords(description, field)}</td>
            <td><${Words} text=${field.description} /></td>
          </tr>`,
        )}
      </tbody>
    </table>
  `;
}

function Operation({ description, method, path, operation }) {
  const content = operation.requestBody?.content?.["application/json"];
  const body = content && resolve(description, content.schema);
  const answer = operation.responses["200"]?.content?.["application/json"];
  const answerSchema = resolve(description, answer?.schema);
  return html`
    <section class="operation" id=${operation.operationId}>
      <h3><span class="method" data-method=${method}>${method.toUpperCase()}</span> <code>${path}</code></h3>
      <p class="summary">${operation.summary}</p>
      <p><${Words} text=${operation.description} /></p>
      <pre><code>${curl(method, path, operation, body?.example)}</code></pre>
      ${body && html`<h4>Body</h4><${Fields} description=${description} schema=${body} />`}
      ${answerSchema.properties && html`<h4>Answer</h4><${Fields} description=${description} schema=${answerSchema} />`}
      ${answer?.example && html`<h4>Answer</h4><pre><code>${JSON.stringify(answer.example, null, 2)}</code></pre>`}
      <h4>Statuses</h4>
      <ul>
        ${Object.entries(operation.responses).map(([status, what]) => html`<li><code>${status}</code> <${Words} text=${what.description} /></li>`)}
      </ul>
    </section>
  `;
}

function keysNeeded(description) {
  return Object.keys(description.components?.securitySchemes ?? {}).length > 0;
}

function Page({ description }) {
  const operations = Object.entries(description.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })),
  );
  return html`
    <div class="docs">
      <nav aria-label="Operations">
        <p><a href="/">← Chat</a></p>
        ${operations.map(({ method, path, operation }) => html`<p><a href=${`#${operation.operationId}`}>
          <span class="method" data-method=${method}>${method.toUpperCase()}</span> ${path}</a></p>`)}
      </nav>
      <main>
        <h1>${description.info.title} API <small>${description.info.version}</small></h1>
        <p>${description.info.description} The machine-readable form is <a href="/openapi.json">/openapi.json</a>.</p>
        <pre><code>${`from openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1", api_key="${keysNeeded(description) ? "API_KEY" : "none"}")`}</code></pre>
        <p>Every error has the body <code>${`{"error": {"message", "type", "param", "code"}}`}</code>; its message says how to mend the request.</p>
        ${operations.map((operation) => html`<${Operation} description=${description} ...${operation} />`)}
      </main>
    </div>
  `;
}

const description = await (await fetch("/openapi.json")).json();
render(html`<${Page} description=${description} />`, document.getElementById("app"));
