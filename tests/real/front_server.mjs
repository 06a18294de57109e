// An HTTP/2 server on node's own http2: argv is the PEM file and the port.
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const pem = readFileSync(process.argv[2]);
const server = http2.createSecureServer({ key: pem, cert: pem, settings: { initialWindowSize: 65535 } });

const routes = {
  "/v1/stream": (stream) => {
    stream.additionalHeaders({ ":status": 103, link: "</x>" });
    stream.respond({ ":status": 200, "content-type": "text/event-stream" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-checksum": "1" }));
    let left = 20;
    const timer = setInterval(() => {
      stream.write(`data: ${left}\n\n`);
      if (--left === 10) stream.session.goaway(0, stream.id); // a graceful end that covers this stream
      if (left === 0) { clearInterval(timer); stream.end(); }
    }, 10);
  },
  "/v1/upload": (stream) => {
    let size = 0;
    stream.on("data", (data) => { size += data.length; });
    stream.on("end", () => { stream.respond({ ":status": 200 }); stream.end(String(size)); });
  },
  "/v1/refused": (stream) => {
    stream.respond({ ":status": 413 });
    stream.end("too large");
  },
  "/v1/large": (stream) => {
    stream.respond({ ":status": 200 });
    stream.end(Buffer.alloc(20_000_000, "x"));
  },
  "/v1/think": (stream) => {
    setTimeout(() => { stream.respond({ ":status": 200 }); stream.end("thought"); }, 1500);
  },
};

server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  routes[headers[":path"]](stream);
});
server.on("sessionError", () => {});
server.listen(Number(process.argv[3]), "127.0.0.1");
