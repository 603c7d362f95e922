package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"time"

	"github.com/parquet-go/parquet-go"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/s3blob"   // s3://
	"gocloud.dev/gcerrors"

	"github.com/kansei-live/kansei/internal/watchlog"
)

// The files of a revision, at {room}/{broadcast}/{revision}/. The manifest is written last: where it is, all is there.
const (
	fileIntervals = "intervals.parquet" // connections
	fileUsers     = "users.parquet"     // users, over all their connections
	fileSummary   = "summary.json"      // the broadcast as a whole
	fileManifest  = "manifest.json"
)

// Files is the object storage of archived broadcasts.
type Files struct {
	bucket *blob.Bucket
	url    string
}

// OpenFiles opens object storage: file:///directory, which is made, or s3://bucket?region=…, as gocloud.dev/blob has it.
func OpenFiles(ctx context.Context, address string) (*Files, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" && u.Scheme != "s3" {
		return nil, errors.New("archive: an address begins with file:/// or s3://")
	}
	open := *u
	if u.Scheme == "file" {
		q := u.Query()
		// What is half written lies beside what it becomes, so that it can be moved there, and no attributes are kept.
		for name, value := range map[string]string{"create_dir": "true", "no_tmp_dir": "true", "metadata": "skip"} {
			if !q.Has(name) {
				q.Set(name, value)
			}
		}
		open.RawQuery = q.Encode()
	}
	bucket, err := blob.OpenBucket(ctx, open.String())
	if err != nil {
		return nil, fmt.Errorf("archive: %s: %w", u.Redacted(), err)
	}
	u.RawQuery = ""
	return &Files{bucket, u.Redacted()}, nil
}

// String is where the files are.
func (f *Files) String() string { return f.url }

// Close ends what [OpenFiles] began.
func (f *Files) Close() error { return f.bucket.Close() }

// Ready says why files cannot be written or read; nil when they can.
func (f *Files) Ready(ctx context.Context) error {
	ok, err := f.bucket.IsAccessible(ctx)
	if err == nil && !ok {
		err = errors.New("there is no such place")
	}
	if err != nil {
		return fmt.Errorf("archive: %s: %w", f.url, err)
	}
	return nil
}

// errTaken says that another file is there already.
var errTaken = errors.New("another file is there")

// put writes a file, if there is none; the same one is as good.
func (f *Files) put(ctx context.Context, key string, body []byte, contentType string) error {
	err := f.bucket.WriteAll(ctx, key, body, &blob.WriterOptions{ContentType: contentType, IfNotExist: true})
	if gcerrors.Code(err) == gcerrors.FailedPrecondition {
		had, err := f.bucket.ReadAll(ctx, key)
		switch {
		case err != nil:
			return fmt.Errorf("archive: %s: %w", key, err)
		case !bytes.Equal(had, body):
			return fmt.Errorf("archive: %s: %w", key, errTaken)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("archive: write %s: %w", key, err)
	}
	return nil
}

// link is where a file is for somebody else: for a day, where the storage signs addresses.
func (f *Files) link(ctx context.Context, key string) string {
	if signed, err := f.bucket.SignedURL(ctx, key, &blob.SignedURLOptions{Expiry: 24 * time.Hour}); err == nil {
		return signed
	}
	return f.url + "/" + key
}

// forget removes the files of a revision, the manifest first, and returns how many that were.
func (f *Files) forget(ctx context.Context, prefix string) (n int, err error) {
	keys := []string{prefix + "/" + fileManifest}
	for it := f.bucket.List(&blob.ListOptions{Prefix: prefix + "/"}); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("archive: list %s: %w", prefix, err)
		}
		keys = append(keys, o.Key)
	}
	for _, key := range keys {
		switch err := f.bucket.Delete(ctx, key); {
		case err == nil:
			n++
		case gcerrors.Code(err) != gcerrors.NotFound:
			return n, fmt.Errorf("archive: delete %s: %w", key, err)
		}
	}
	return n, nil
}

// revisions lists the folders of a broadcast's revisions, current or not.
func (f *Files) revisions(ctx context.Context, room, broadcast string) (prefixes []string, err error) {
	for it := f.bucket.List(&blob.ListOptions{Prefix: room + "/" + broadcast + "/", Delimiter: "/"}); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return prefixes, nil
		}
		if err != nil {
			return nil, fmt.Errorf("archive: list %s/%s: %w", room, broadcast, err)
		}
		if o.IsDir {
			prefixes = append(prefixes, path.Clean(o.Key))
		}
	}
}

// content is the files of a revision, as the same input makes them.
type content struct {
	files []file
	hash  string
}

type file struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
	URL    string `json:"url,omitempty"`
	body   []byte
}

// Manifest is a revision's list of what belongs to it.
type Manifest struct {
	Record
	Files []file `json:"files"`
}

// encode makes the files of a broadcast. Of one whose room kept totals alone there is a summary.
func encode(s *Shaped) (content, error) {
	var c content
	add := func(name, contentType string, body []byte) {
		sum := sha256.Sum256(body)
		c.files = append(c.files, file{Name: name, Type: contentType, Bytes: len(body), SHA256: hex.EncodeToString(sum[:]), body: body})
	}
	if len(s.Users) > 0 || s.Summary.TotalsOnly == 0 {
		intervals, err := toParquet(s.Intervals)
		if err != nil {
			return c, err
		}
		users, err := toParquet(s.Users)
		if err != nil {
			return c, err
		}
		add(fileIntervals, "application/vnd.apache.parquet", intervals)
		add(fileUsers, "application/vnd.apache.parquet", users)
	}
	summary, err := json.MarshalIndent(s.Summary, "", "  ")
	if err != nil {
		return c, err
	}
	add(fileSummary, "application/json", append(summary, '\n'))
	all := sha256.New()
	for _, f := range c.files {
		_, _ = fmt.Fprintln(all, f.Name, f.SHA256) // a hash takes all
	}
	c.hash = hex.EncodeToString(all.Sum(nil))
	return c, nil
}

// toParquet makes a Parquet file of rows, the same one of the same rows, and reads it back.
func toParquet[T any](rows []T) ([]byte, error) {
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, parquet.CreatedBy("kansei", "1", ""), parquet.Compression(&parquet.Zstd))
	if _, err := w.Write(rows); err != nil {
		return nil, fmt.Errorf("archive: write Parquet: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("archive: write Parquet: %w", err)
	}
	back, err := fromParquet[T](b.Bytes())
	if err != nil || len(back) != len(rows) {
		return nil, fmt.Errorf("archive: a Parquet file of %d rows has %d when it is read back: %w", len(rows), len(back), err)
	}
	return b.Bytes(), nil
}

func fromParquet[T any](p []byte) ([]T, error) {
	rows, err := parquet.Read[T](bytes.NewReader(p), int64(len(p)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return rows, err
}

// write writes the files of a revision; errTaken says that its folder has others.
func (f *Files) write(ctx context.Context, rec Record, c content) error {
	for _, one := range c.files {
		if err := f.put(ctx, rec.Prefix+"/"+one.Name, one.body, one.Type); err != nil {
			return err
		}
	}
	manifest, err := json.MarshalIndent(Manifest{rec, c.files}, "", "  ")
	if err != nil {
		return err
	}
	return f.put(ctx, rec.Prefix+"/"+fileManifest, append(manifest, '\n'), "application/json")
}

// read is a revision as it was written.
func (f *Files) read(ctx context.Context, rec *Record) (*Shaped, error) {
	s := &Shaped{Broadcast: watchlog.Broadcast{Room: rec.Room, ID: rec.Broadcast, Waiting: rec.Waiting, Began: rec.Began, Ended: rec.Ended}, Input: rec.Input}
	s.Settled = true
	p, err := f.bucket.ReadAll(ctx, rec.Prefix+"/"+fileSummary)
	if err == nil {
		err = json.Unmarshal(p, &s.Summary)
	}
	if err == nil && (s.Summary.TotalsOnly == 0 || s.Summary.Users > s.Summary.TotalsOnly) {
		if p, err = f.bucket.ReadAll(ctx, rec.Prefix+"/"+fileUsers); err == nil {
			s.Users, err = fromParquet[watchlog.User](p)
		}
		if err == nil {
			if p, err = f.bucket.ReadAll(ctx, rec.Prefix+"/"+fileIntervals); err == nil {
				s.Intervals, err = fromParquet[watchlog.Interval](p)
			}
		}
		if gcerrors.Code(err) == gcerrors.NotFound {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("archive: read %s: %w", rec.Prefix, err)
	}
	return s, nil
}
