// Read streams with the real SDKs of Node, and say what each of them read.
//
//     node decode.js NODE_MODULES < a line of JSON
//
// The line is a list of {dialect, pieces}: the body, base64, each piece a chunk. The answer is a line with a list of
// {objects, error}, in order.

const { createRequire } = require("node:module");
const path = require("node:path");
const load = createRequire(path.join(path.resolve(process.argv[2]), "x.js"));
const { OpenAI } = load("openai");
const { Anthropic } = load("@anthropic-ai/sdk");
const { GoogleGenAI } = load("@google/genai");

function answering(pieces) {
  return async () =>
    new Response(
      new ReadableStream({
        start(controller) {
          for (const piece of pieces) controller.enqueue(new Uint8Array(Buffer.from(piece, "base64")));
          controller.close();
        },
      }),
      { headers: { "content-type": "text/event-stream" } },
    );
}

const messages = [{ role: "user", content: "Hello?" }];
const openai = (fetch) => new OpenAI({ apiKey: "sk-lab", baseURL: "http://lab/v1", maxRetries: 0, fetch });
const SDKS = {
  "openai-chat": (fetch) => openai(fetch).chat.completions.create({ model: "m", messages, stream: true }),
  "openai-completions": (fetch) => openai(fetch).completions.create({ model: "m", prompt: "Hello?", stream: true }),
  "openai-responses": (fetch) => openai(fetch).responses.create({ model: "m", input: "Hello?", stream: true }),
  "anthropic-messages": (fetch) =>
    new Anthropic({ apiKey: "sk-lab", baseURL: "http://lab", maxRetries: 0, fetch }).messages.create({
      model: "m",
      max_tokens: 9,
      messages,
      stream: true,
    }),
  gemini: (fetch) => {
    globalThis.fetch = fetch; // it takes no other
    const client = new GoogleGenAI({ apiKey: "lab", httpOptions: { baseUrl: "http://lab" } });
    return client.models.generateContentStream({ model: "m", contents: "Hello?" });
  },
  interactions: (fetch) => {
    globalThis.fetch = fetch;
    const client = new GoogleGenAI({ apiKey: "lab", httpOptions: { baseUrl: "http://lab" } });
    return client.interactions.create({ model: "m", input: "Hello?", stream: true });
  },
};

async function read({ dialect, pieces }) {
  const objects = [];
  try {
    for await (const item of await SDKS[dialect](answering(pieces))) {
      const { sdkHttpResponse, ...fields } = item;
      objects.push(JSON.stringify(fields));
    }
  } catch (error) {
    return { objects, error: `${error.name}: ${error.message}` };
  }
  return { objects, error: null };
}

async function main() {
  console.warn = console.error;
  const input = await new Promise((resolve) => {
    const chunks = [];
    process.stdin.on("data", (chunk) => chunks.push(chunk)).on("end", () => resolve(Buffer.concat(chunks).toString()));
  });
  const found = [];
  for (const stream of JSON.parse(input)) found.push(await read(stream));
  process.stdout.write(JSON.stringify(found));
}

main();
