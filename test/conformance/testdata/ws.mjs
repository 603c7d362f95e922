// Plays with Node's ws. The runs come as JSON on stdin, each report leaves as a line
// of JSON on stdout.

import { text } from "node:stream/consumers";
import WebSocket from "ws";
import { playAll } from "./play.mjs";

const { ca, protocols, runs } = JSON.parse(await text(process.stdin));

const connect = (run) => new WebSocket(run.url, protocols, {
  ca,
  perMessageDeflate: run.offer && { threshold: 0, ...run.options },
});

const able = {
  watch(ws, note) {
    ws.on("ping", (data) => note("pings", data.toString()));
    ws.on("pong", (data) => note("pongs", data.toString()));
  },
  cork: (ws) => ws._socket.cork(),
  uncork: (ws) => ws._socket.uncork(),
  ping: (ws, data) => ws.ping(data),
  fragments(ws, parts, between) {
    parts.forEach((part, i) => {
      if (i > 0) between();
      ws.send(Buffer.from(part, "base64"), { binary: false, fin: i === parts.length - 1 });
    });
  },
  drop: (ws) => ws.terminate(),
};

await playAll(runs, connect, able, (report) => {
  process.stdout.write(`${JSON.stringify(report)}\n`);
});
