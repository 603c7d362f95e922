package archive

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/internal/watchlog"
)

// The five queries of docs/WATCHLOG.md give what they ask for, by a reader that others wrote.
func TestQueriesOfTheDocument(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/WATCHLOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Five questions in DuckDB\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var queries []string
	for _, m := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(section, -1) {
		queries = append(queries, m[1])
	}
	if len(queries) != 5 {
		t.Fatalf("the document has %d queries", len(queries))
	}

	s, files := newStage(t), inDir(t)
	w := s.worker(t, files, nil)
	began := s.ended("lesson") // ten minutes
	phone := row(began, 1, "aya", 0, 540, watchlog.EndLeft)
	phone.Visible, phone.Played = []watchlog.Range{{phone.From, phone.From + 120_000}}, []watchlog.Played{{phone.From, phone.From + 180_000, 0, 180_000}}
	tv := row(began, 2, "ben", 60, 200, watchlog.EndLost)
	tv.Device, tv.Visible, tv.Played = watchlog.DeviceTV, nil, []watchlog.Played{{tv.From, tv.From + 90_000, 60_000, 150_000}}
	again := row(began, 3, "ben", 230, 300, watchlog.EndSilent)
	again.Device, again.Visible, again.Played = watchlog.DeviceTV, []watchlog.Range{{again.From, again.From + 30_000}}, nil
	s.tell(t, "lesson", &watchlog.Batch{Life: "one", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{phone, tv, again}})
	round(t, w)
	for i, q := range queries {
		queries[i] = strings.ReplaceAll(q, "'archive/", "'"+strings.TrimPrefix(files.url, "file://")+"/")
	}
	got := ask(t, queries)
	want := []string{
		`[["aya","name of aya",0.9]]`,
		`[["aya",2],["ben",0.5]]`,
		"",
		`[["phone","1","0"],["tv","2","2"]]`,
		`[["1","2"],["2","2"],["0","1"]]`,
	}
	for i := range want {
		if i == 2 {
			if n := len(got[i]); n != 9 {
				t.Errorf("%d minutes: %s", n, got[i])
			}
			for m, line := range got[i] {
				users := "1"
				if m >= 1 && m <= 4 { // ben is there from 60 s to 200 s, and from 230 s to 300 s
					users = "2"
				}
				if string(line[1]) != `"`+users+`"` {
					t.Errorf("in minute %d %s users, want %s", m, line[1], users)
				}
			}
			continue
		}
		all, err := json.Marshal(got[i])
		if err != nil || string(all) != want[i] {
			t.Errorf("query %d:\n got %s\nwant %s", i+1, all, want[i])
		}
	}
}

// ask asks DuckDB.
func ask(t *testing.T, queries []string) (rows [][][]json.RawMessage) {
	t.Helper()
	if _, err := os.Stat("../../test/duckdb/node_modules"); err != nil {
		t.Fatalf("DuckDB is not installed, which the tests need: make setup (%v)", err)
	}
	in, err := json.Marshal(queries)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "ask.mjs")
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "../../test/duckdb", bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &rows); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return rows
}
