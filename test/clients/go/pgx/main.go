// One task: the features of pgx.
package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"cutover/clients/report"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

func addressOf(to report.Endpoint) string {
	tls := ""
	if to.CA != "" {
		tls = "?sslmode=verify-full&sslrootcert=" + to.CA
	}
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s%s", to.User, to.Password, to.Host, to.Port, to.Database, tls)
}

// with makes a feature of what needs one connection.
func with(work func(context.Context, *pgx.Conn, report.Endpoint) error) func(context.Context, report.Endpoint) error {
	return func(ctx context.Context, to report.Endpoint) error {
		conn, err := pgx.Connect(ctx, addressOf(to))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		return work(ctx, conn, to)
	}
}

func codeOf(err error) string {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return told.Code
	}
	return fmt.Sprintf("no SQLSTATE: %v", err)
}

func connect(ctx context.Context, conn *pgx.Conn, to report.Endpoint) error {
	var user, database string
	err := conn.QueryRow(ctx, "SELECT current_user, current_database()").Scan(&user, &database)
	wrong := to
	wrong.Password = "wrong"
	_, refused := pgx.Connect(ctx, addressOf(wrong))
	return report.First(
		err,
		report.Same([]string{user, database}, []string{to.User, to.Database}),
		report.Same(codeOf(refused), "28P01"),
	)
}

// encrypted connects by this authority, and not by another one.
func encrypted(ctx context.Context, to report.Endpoint) error {
	ask := with(func(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
		var one int
		return report.First(conn.QueryRow(ctx, "SELECT 1").Scan(&one), report.Same(one, 1))
	})
	trusted, other := to, to
	trusted.CA, other.CA = report.TrustedCA, report.OtherCA
	var unknown x509.UnknownAuthorityError
	err := ask(ctx, trusted)
	return report.First(err, report.Same(errors.As(ask(ctx, other), &unknown), true))
}

func prepared(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
	if _, err := conn.Prepare(ctx, "double", "SELECT $1::integer * 2"); err != nil {
		return err
	}
	for n := range 20 {
		var double int
		var word string
		err := report.First(
			conn.QueryRow(ctx, "double", n).Scan(&double),
			// Texts are prepared too, and kept in a cache of statements.
			conn.QueryRow(ctx, "SELECT $1::text || 'n'", fmt.Sprint(n)).Scan(&word),
			report.Same([]any{double, word}, []any{2 * n, fmt.Sprint(n, "n")}),
		)
		if err != nil {
			return err
		}
	}
	if err := conn.Deallocate(ctx, "double"); err != nil {
		return err
	}
	return batch(ctx, conn)
}

// batch sends many statements before it reads the first answer.
func batch(ctx context.Context, conn *pgx.Conn) error {
	var queued pgx.Batch
	sum := 0
	for n := range 20 {
		queued.Queue("SELECT $1::integer * 3", n).QueryRow(func(row pgx.Row) error {
			var answer int
			err := row.Scan(&answer)
			sum += answer
			return err
		})
	}
	return report.First(conn.SendBatch(ctx, &queued).Close(), report.Same(sum, 570))
}

func transactions(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
	insert := func(on pgx.Tx, id int) error {
		_, err := on.Exec(ctx, "INSERT INTO "+report.Items+" VALUES ($1, 'note')", id)
		return err
	}
	if _, err := conn.Exec(ctx, "DELETE FROM "+report.Items); err != nil {
		return err
	}
	first, err := conn.Begin(ctx)
	if err := report.First(err, insert(first, 1), first.Rollback(ctx)); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, conn, func(on pgx.Tx) error {
		if err := insert(on, 1); err != nil {
			return err
		}
		again := pgx.BeginFunc(ctx, on, func(inner pgx.Tx) error { return insert(inner, 1) })
		return report.First(report.Same(codeOf(again), "23505"), insert(on, 2))
	})
	if err != nil {
		return err
	}
	rows, _ := conn.Query(ctx, "SELECT id FROM "+report.Items+" ORDER BY id")
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	return report.First(err, report.Same(ids, []int{1, 2}))
}

func copies(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
	var rows [][]any
	var lines strings.Builder
	for n := 1; n <= 1000; n++ {
		note := fmt.Sprintf("note %d é", n)
		rows = append(rows, []any{n, note})
		fmt.Fprintf(&lines, "%d\t%s\n", n, note)
	}
	if _, err := conn.Exec(ctx, "DELETE FROM "+report.Items); err != nil {
		return err
	}
	into := pgx.Identifier{report.Items}
	if _, err := conn.CopyFrom(ctx, into, []string{"id", "note"}, pgx.CopyFromRows(rows)); err != nil {
		return err
	}
	var out bytes.Buffer
	_, err := conn.PgConn().CopyTo(ctx, &out, "COPY (SELECT * FROM "+report.Items+" ORDER BY id) TO STDOUT")
	return report.First(err, report.Same(out.String(), lines.String()))
}

func notify(ctx context.Context, conn *pgx.Conn, to report.Endpoint) error {
	if _, err := conn.Exec(ctx, "LISTEN "+report.Client); err != nil {
		return err
	}
	tell := with(func(ctx context.Context, other *pgx.Conn, _ report.Endpoint) error {
		_, err := other.Exec(ctx, "SELECT pg_notify($1, 'hello')", report.Client)
		return err
	})
	if err := tell(ctx, to); err != nil {
		return err
	}
	waiting, stop := context.WithTimeout(ctx, to.NotifyWait)
	defer stop()
	heard, err := conn.WaitForNotification(waiting)
	if err != nil {
		return err
	}
	return report.Same(heard.Payload, "hello")
}

func cancel(ctx context.Context, conn *pgx.Conn, to report.Endpoint) error {
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, report.Sleep)
		failed <- err
	}()
	watch := with(func(ctx context.Context, other *pgx.Conn, _ report.Endpoint) error {
		return report.UntilRunning(func() (running int, err error) {
			err = other.QueryRow(ctx, report.Running).Scan(&running)
			return
		})
	})
	if err := report.First(watch(ctx, to), conn.PgConn().CancelRequest(ctx)); err != nil {
		return err
	}
	var one int
	code := codeOf(<-failed)
	return report.First(report.Same(code, "57014"), conn.QueryRow(ctx, "SELECT 1").Scan(&one))
}

func types(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
	moment := time.Date(2026, 2, 28, 23, 59, 59, 123456000, time.UTC)
	day := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)
	code := "01234567-89ab-cdef-0123-456789abcdef"
	document := map[string]any{"a": []any{1.0, nil, "é"}}
	sent := []any{1, int16(-32768), int64(9007199254740993), "1234.5600", 0.1, true, "it's é\n", []byte{0, 1, 92, 255}, code}
	sent = append(sent, day, moment, document)
	if _, err := conn.Exec(ctx, "DELETE FROM "+report.Types); err != nil {
		return err
	}
	into := "INSERT INTO " + report.Types + " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
	if _, err := conn.Exec(ctx, into, sent...); err != nil {
		return err
	}
	var id int
	var small int16
	var big int64
	var exact, words, uuid string
	var double float64
	var truth bool
	var raw []byte
	var foundDay, foundMoment time.Time
	var found map[string]any
	columns := "SELECT id, small, big, exact::text, double, truth, words, bytes, code::text, day, moment, document FROM "
	row := conn.QueryRow(ctx, columns+report.Types)
	err := row.Scan(&id, &small, &big, &exact, &double, &truth, &words, &raw, &uuid, &foundDay, &foundMoment, &found)
	got := []any{id, small, big, exact, double, truth, words, raw, uuid, foundDay, foundMoment.UTC(), found}
	return report.First(err, report.Same(got, sent))
}

func arrays(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
	one, less := int64(1), int64(-9007199254740993)
	a, empty, null, odd := "a", "", "NULL", `{"x", \y}`
	numbers, texts := []*int64{&one, nil, &less}, []*string{&a, nil, &empty, &null, &odd}
	var foundNumbers []*int64
	var foundTexts []*string
	err := conn.QueryRow(ctx, "SELECT $1::bigint[], $2::text[]", numbers, texts).Scan(&foundNumbers, &foundTexts)
	return report.First(err, report.Same(foundNumbers, numbers), report.Same(foundTexts, texts))
}

func failures(ctx context.Context, conn *pgx.Conn, _ report.Endpoint) error {
	if _, err := conn.Exec(ctx, "DELETE FROM "+report.Items); err != nil {
		return err
	}
	insert := func() error {
		_, err := conn.Exec(ctx, "INSERT INTO "+report.Items+" VALUES ($1, 'note')", 1)
		return err
	}
	var unique, syntax *pgconn.PgError
	if err := insert(); err != nil {
		return err
	}
	if !errors.As(insert(), &unique) {
		return errors.New("a key was taken twice")
	}
	_, err := conn.Exec(ctx, "SELECT 1 FROM WHERE")
	if !errors.As(err, &syntax) {
		return fmt.Errorf("not an error of the server: %w", err)
	}
	var one int
	return report.First(
		report.Same([]string{unique.Code, unique.ConstraintName}, []string{"23505", report.Items + "_pkey"}),
		report.Same([]any{syntax.Code, syntax.Position}, []any{"42601", int32(15)}),
		conn.QueryRow(ctx, "SELECT 1").Scan(&one),
	)
}

func pool(ctx context.Context, to report.Endpoint) error {
	connections, err := pgxpool.New(ctx, addressOf(to)+"?pool_max_conns=4")
	if err != nil {
		return err
	}
	defer connections.Close()
	answers, errs := make([]int, 40), make([]error, 40)
	var all sync.WaitGroup
	for n := range 40 {
		all.Add(1)
		go func() {
			defer all.Done()
			errs[n] = connections.QueryRow(ctx, "SELECT $1::integer", n).Scan(&answers[n])
		}()
	}
	all.Wait()
	for n, answer := range answers {
		errs = append(errs, report.Same(answer, n))
	}
	return report.First(errs...)
}

type loop struct{ conn *pgx.Conn }

func open(ctx context.Context, to report.Endpoint) (report.Loop, error) {
	conn, err := pgx.Connect(ctx, addressOf(to))
	return loop{conn}, err
}

func (l loop) Insert(ctx context.Context, n int) error {
	_, err := l.conn.Exec(ctx, "INSERT INTO "+report.Table+" (n) VALUES ($1)", n)
	return err
}

func (l loop) Transaction(ctx context.Context, n int) error {
	return pgx.BeginFunc(ctx, l.conn, func(on pgx.Tx) error {
		var max int
		return report.First(
			l.Insert(ctx, n),
			on.QueryRow(ctx, "SELECT max(n) FROM "+report.Table).Scan(&max),
			report.Same(max, n),
		)
	})
}

func (l loop) Total(ctx context.Context) (count, max int, err error) {
	err = l.conn.QueryRow(ctx, "SELECT count(*), max(n) FROM "+report.Table).Scan(&count, &max)
	return
}

func (l loop) Close() { l.conn.Close(context.Background()) }

func main() {
	report.Run([]report.Feature{
		{Name: "connect", Work: with(connect)},
		{Name: "tls", Work: encrypted},
		{Name: "prepared", Work: with(prepared)},
		{Name: "transactions", Work: with(transactions)},
		{Name: "copy", Work: with(copies)},
		{Name: "notify", Work: with(notify)},
		{Name: "cancel", Work: with(cancel)},
		{Name: "types", Work: with(types)},
		{Name: "arrays", Work: with(arrays)},
		{Name: "errors", Work: with(failures)},
		{Name: "pool", Work: pool},
	}, open)
}
