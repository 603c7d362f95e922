// Plays runs of the table, in Node and in browsers alike.

const patience = 30_000; // ms, for one run
const abreast = 10; // runs at a time

// playAll plays runs, some at a time, and hands each report to tell. connect opens a
// WebSocket for a run; what not every kind of WebSocket can do, it gets from able.
export async function playAll(runs, connect, able, tell) {
  const queue = [...runs];
  const worker = async () => {
    for (let run = queue.shift(); run; run = queue.shift()) {
      await tell(await play(run, connect, able));
    }
  };
  await Promise.all(Array.from({ length: abreast }, worker));
}

async function play(run, connect, able) {
  const report = {
    id: run.id, protocol: "", extensions: "", messages: [], pings: [], pongs: [],
    code: 0, reason: "", clean: false, error: "",
  };
  let wake = () => {};
  let opened = false;
  let ended = false;
  const ws = connect(run);
  able.watch(ws, (kind, data) => {
    report[kind].push(data);
    wake();
  });
  ws.onopen = () => {
    opened = true;
    report.protocol = ws.protocol;
    report.extensions = ws.extensions;
    wake();
  };
  ws.onmessage = ({ data }) => {
    report.messages.push(typeof data === "string" ? data : "not a text");
    wake();
  };
  ws.onerror = (event) => {
    if (!opened) report.error = `not opened: ${event.message ?? "error"}`;
  };
  ws.onclose = ({ code, reason, wasClean }) => {
    Object.assign(report, { code, reason, clean: wasClean });
    ended = true;
    wake();
  };

  const timer = setTimeout(() => {
    report.error += `not done after ${patience} ms; `;
    ended = true;
    able.drop(ws);
    wake();
  }, patience);
  // until waits until ok, and tells whether that came before the end.
  const until = async (ok) => {
    while (!ok() && !ended) await new Promise((resolve) => { wake = resolve; });
    return ok();
  };
  const answered = async (data, f) => {
    const n = report.pongs.length;
    f();
    return until(() => report.pongs.length > n && report.pongs.at(-1) === data);
  };

  const steps = {
    send: ({ text = "" }) => ws.send(text),
    binary: ({ text = "" }) => ws.send(new TextEncoder().encode(text)),
    cork: () => able.cork(ws),
    uncork: () => able.uncork(ws),
    await: ({ messages = 0 }) => until(() => report.messages.length >= messages),
    hold: ({ millis }) => Promise.race([
      new Promise((resolve) => { setTimeout(resolve, millis); }),
      until(() => false),
    ]),
    close: ({ code, reason = "" }) => (code ? ws.close(code, reason) : ws.close()),
    ping: ({ text = "" }) => answered(text, () => able.ping(ws, text)),
    fragments: ({ parts, between, text = "" }) => (between
      ? answered(text, () => able.fragments(ws, parts, () => able.ping(ws, text)))
      : able.fragments(ws, parts, () => {})),
  };
  if (await until(() => opened)) {
    for (const step of run.steps ?? []) {
      // What waits gives a promise; the rest follows at once.
      const waiting = steps[step.op](step);
      if (waiting !== undefined && (await waiting) === false) {
        report.error += `the end in the midst of ${step.op}; `;
        break;
      }
    }
    await until(() => ended);
  }
  await until(() => ended);
  clearTimeout(timer);
  return report;
}
