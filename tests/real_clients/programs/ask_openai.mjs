import OpenAI from "openai";

const stream = await new OpenAI().chat.completions.create({
  model: "gpt-5",
  messages: [{ role: "user", content: "Hello?" }],
  max_tokens: 60,
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
