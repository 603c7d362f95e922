// Asks DuckDB what is on its standard input, a JSON list of queries, and answers with a JSON list of lists of rows.

import { DuckDBInstance } from "@duckdb/node-api";

const queries = JSON.parse(await new Response(process.stdin).text());
const instance = await DuckDBInstance.create(":memory:");
const connection = await instance.connect();
await connection.run("SET TimeZone = 'UTC'");
const answers = [];
for (const query of queries) {
  const reader = await connection.runAndReadAll(query);
  answers.push(reader.getRowsJson());
}
console.log(JSON.stringify(answers));
