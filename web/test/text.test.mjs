// What is typed counts as servers count it: both are tested with the same table.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { MAX_LINE_FEEDS, measure } from "../sdk/text.js";

const table = JSON.parse(readFileSync(new URL("../../protocol/testdata/text.json", import.meta.url), "utf8"));

test("a text is cleaned and counted as servers do it", () => {
  assert.ok(table.cases.length > 300);
  assert.equal(MAX_LINE_FEEDS, table.max_line_feeds);
  for (const c of table.cases) {
    const m = measure(c.text);
    assert.deepEqual([m.text, m.length, m.lineFeeds, m.empty], [c.clean, c.length, c.line_feeds, c.empty], `${c.name}: ${JSON.stringify(c.text)}`);
    assert.equal(measure(m.text).text, m.text, "what is clean stays");
  }
});

test("half a pair of surrogates is a replacement character", () => {
  assert.deepEqual(measure("a\ud83cb\udf00"), { text: "a\ufffdb\ufffd", length: 4, lineFeeds: 0, empty: false });
  assert.equal(measure("👩").length, 1);
});
