import { openai } from "@ai-sdk/openai";
import { streamText } from "ai";

const { textStream } = streamText({ model: openai("gpt-5"), maxOutputTokens: 60, prompt: "Hello?" });
for await (const text of textStream) process.stdout.write(text);
