package archive

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/kansei-live/kansei/internal/redact"
	"github.com/kansei-live/kansei/internal/watchlog"
)

//go:embed migrations
var migrations embed.FS

// Database is where archived broadcasts are written for those who ask by SQL: PostgreSQL, or MySQL or MariaDB. No statement is
// prepared and nothing is kept in a session, so that a pooler of transactions may stand before it.
type Database struct {
	db       *sql.DB
	postgres bool
}

const (
	databaseTime  = time.Minute // of one transaction
	rowsAtOnce    = 500
	databaseConns = 4
)

// OpenDatabase opens postgres://user:password@host/database or mysql://user:password@host/database. It does not connect.
func OpenDatabase(address string) (*Database, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("archive: the address of the database cannot be read") // it may hold a password
	}
	d := &Database{}
	switch u.Scheme {
	case "postgres", "postgresql":
		cfg, err := pgx.ParseConfig(address)
		if err != nil {
			return nil, fmt.Errorf("archive: %s is not the address of a PostgreSQL database", redact.URL(address))
		}
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
		cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
		d.db, d.postgres = stdlib.OpenDB(*cfg), true
	case "mysql", "mariadb":
		cfg := mysql.NewConfig()
		cfg.User, cfg.Net, cfg.Addr, cfg.DBName = u.User.Username(), "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
		cfg.Passwd, _ = u.User.Password()
		if u.Port() == "" {
			cfg.Addr += ":3306"
		}
		if socket := u.Query().Get("socket"); socket != "" {
			cfg.Net, cfg.Addr = "unix", socket
		}
		cfg.TLSConfig = u.Query().Get("tls")
		cfg.InterpolateParams, cfg.ParseTime, cfg.Loc, cfg.Timeout = true, true, time.UTC, 10*time.Second
		c, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, fmt.Errorf("archive: %s is not the address of a MySQL or MariaDB database", redact.URL(address))
		}
		d.db = sql.OpenDB(c)
	default:
		return nil, errors.New("archive: the address of a database begins with postgres:// or mysql://")
	}
	d.db.SetMaxOpenConns(databaseConns)
	d.db.SetConnMaxIdleTime(time.Minute)
	return d, nil
}

// Close ends what [OpenDatabase] began.
func (d *Database) Close() error { return d.db.Close() }

// Migrate makes the tables, or changes those of an earlier version. One worker at a time may.
func (d *Database) Migrate(ctx context.Context) error {
	dialect, dir := goose.DialectMySQL, "migrations/mysql"
	if d.postgres {
		dialect, dir = goose.DialectPostgres, "migrations/postgres"
	}
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, d.db, files, goose.WithTableName("kansei_migrations"))
	if err != nil {
		return fmt.Errorf("archive: the tables: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("archive: the tables: %w", err)
	}
	return nil
}

// Store writes a revision in the place of an earlier one of the same broadcast; one that is older than what is there is not
// written. Rows are written in the order of their keys, so that two who write do not wait for each other in a circle.
func (d *Database) Store(ctx context.Context, rec *Record, s *Shaped) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("archive: the database: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing once it is committed
	if err := d.store(ctx, tx, rec, s); err != nil {
		return fmt.Errorf("archive: the database: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("archive: the database: %w", err)
	}
	return nil
}

func (d *Database) store(ctx context.Context, tx *sql.Tx, rec *Record, s *Shaped) error {
	sum := s.Summary
	row := []any{
		rec.Room, rec.Broadcast, rec.Revision, rec.Final, moment(rec.Began), moment(rec.Ended), sum.DurationMS, sum.Users, sum.Guests, sum.Peak, sum.Mean,
		sum.ConnectedMS, sum.VisibleMS, sum.PlayedMS, sum.Comments, sum.Estimated, rec.Hash,
	}
	broadcast := columns{
		table: "kansei_broadcasts", keys: []string{"room", "broadcast"},
		values: []string{
			"revision", "final", "began_at", "ended_at", "duration_ms", "users", "guests", "peak_users", "mean_users",
			"connected_ms", "visible_ms", "played_ms", "comments", "estimated", "hash",
		},
	}
	var had int
	err := tx.QueryRowContext(ctx, d.ask("SELECT revision FROM kansei_broadcasts WHERE room = ? AND broadcast = ? FOR UPDATE"), rec.Room, rec.Broadcast).Scan(&had)
	switch {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	case err == nil && had > rec.Revision:
		return nil
	}
	if err := d.upsert(ctx, tx, broadcast, [][]any{row}); err != nil {
		return err
	}
	users := columns{
		table: "kansei_users", keys: []string{"room", "broadcast", "user_id"},
		values: []string{
			"revision", "name", "guest", "from_at", "to_at", "connected_ms", "visible_ms", "played_ms", "waited_ms", "share", "connections", "estimated",
		},
	}
	for all := s.Users; len(all) > 0; { // by id
		part := all[:min(len(all), rowsAtOnce)]
		all = all[len(part):]
		rows := make([][]any, len(part))
		for i, u := range part {
			rows[i] = userRow(rec, &u)
		}
		if err := d.upsert(ctx, tx, users, rows); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, d.ask("DELETE FROM kansei_users WHERE room = ? AND broadcast = ? AND revision <> ?"), rec.Room, rec.Broadcast, rec.Revision)
	return err
}

func userRow(rec *Record, u *watchlog.User) []any {
	return []any{
		rec.Room, rec.Broadcast, clean(u.ID), rec.Revision, clean(u.Name), u.Guest, moment(u.From), moment(u.To),
		u.ConnectedMS, u.VisibleMS, u.PlayedMS, u.WaitedMS, u.Share, u.Connections, u.Estimated,
	}
}

// Erase removes a user's rows, and returns how many that were.
func (d *Database) Erase(ctx context.Context, user string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	done, err := d.db.ExecContext(ctx, d.ask("DELETE FROM kansei_users WHERE user_id = ?"), clean(user))
	if err != nil {
		return 0, fmt.Errorf("archive: the database: %w", err)
	}
	return done.RowsAffected()
}

// Remove removes the rows of a broadcast.
func (d *Database) Remove(ctx context.Context, room, broadcast string) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	for _, table := range []string{"kansei_users", "kansei_broadcasts"} {
		if _, err := d.db.ExecContext(ctx, d.ask("DELETE FROM "+table+" WHERE room = ? AND broadcast = ?"), room, broadcast); err != nil {
			return fmt.Errorf("archive: the database: %w", err)
		}
	}
	return nil
}

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// clean takes out what PostgreSQL does not store.
func clean(s string) string { return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD") }

// columns are those of a table.
type columns struct {
	table        string
	keys, values []string
}

// upsert writes rows, each in the place of the one with its key.
func (d *Database) upsert(ctx context.Context, tx *sql.Tx, c columns, rows [][]any) error {
	all := append(append([]string(nil), c.keys...), c.values...)
	one := "(" + strings.TrimSuffix(strings.Repeat("?, ", len(all)), ", ") + ")"
	set := make([]string, len(c.values))
	for i, v := range c.values {
		if d.postgres {
			set[i] = v + " = EXCLUDED." + v
		} else {
			set[i] = v + " = VALUES(" + v + ")"
		}
	}
	query := "INSERT INTO " + c.table + " (" + strings.Join(all, ", ") + ") VALUES " + strings.TrimSuffix(strings.Repeat(one+", ", len(rows)), ", ")
	if d.postgres {
		query += " ON CONFLICT (" + strings.Join(c.keys, ", ") + ") DO UPDATE SET "
	} else {
		query += " ON DUPLICATE KEY UPDATE "
	}
	var args []any
	for _, r := range rows {
		args = append(args, r...)
	}
	_, err := tx.ExecContext(ctx, d.ask(query+strings.Join(set, ", ")), args...)
	return err
}

// ask writes the places of arguments as the database has them.
func (d *Database) ask(query string) string {
	if !d.postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for _, r := range query {
		if r == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
