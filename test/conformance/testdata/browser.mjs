// Plays in a browser: the runs are fetched from the test, and each report posted to it.

import { playAll } from "./play.mjs";

const post = (path, body) => fetch(path, { method: "POST", body });

try {
  const { protocols, runs } = await (await fetch("runs")).json();
  const nothing = () => {};
  const able = { watch: nothing, cork: nothing, uncork: nothing, drop: (ws) => ws.close() };
  await playAll(runs, (run) => new WebSocket(run.url, protocols), able, (report) => post("report", JSON.stringify(report)));
  await post("done", "");
} catch (error) {
  await post("done", `${error}\n${error.stack}`);
}
