import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
const provider = createOpenAICompatible({ name: "any", baseURL, apiKey });
const { textStream } = streamText({ model: provider("gpt-5"), maxOutputTokens: 60, prompt: "Hello?" });
for await (const text of textStream) process.stdout.write(text);
