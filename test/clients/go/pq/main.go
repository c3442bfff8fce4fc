// One task: the features of database/sql with lib/pq. It has COPY in one direction only.
package main

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"cutover/clients/report"

	"github.com/lib/pq"
)

func addressOf(to report.Endpoint) string {
	tls := "sslmode=disable"
	if to.CA != "" {
		tls = "sslmode=verify-full&sslrootcert=" + to.CA
	}
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?%s", to.User, to.Password, to.Host, to.Port, to.Database, tls)
}

// with makes a feature of what needs a pool of `size` connections.
func with(size int, work func(context.Context, *sql.DB, report.Endpoint) error) func(context.Context, report.Endpoint) error {
	return func(ctx context.Context, to report.Endpoint) error {
		db, err := sql.Open("postgres", addressOf(to))
		if err != nil {
			return err
		}
		defer db.Close()
		db.SetMaxOpenConns(size)
		return work(ctx, db, to)
	}
}

func told(err error) *pq.Error {
	var found *pq.Error
	if errors.As(err, &found) {
		return found
	}
	return &pq.Error{Code: pq.ErrorCode(fmt.Sprintf("no SQLSTATE: %v", err))}
}

func connect(ctx context.Context, db *sql.DB, to report.Endpoint) error {
	var user, database string
	err := db.QueryRowContext(ctx, "SELECT current_user, current_database()").Scan(&user, &database)
	wrong := to
	wrong.Password = "wrong"
	refused := with(1, func(ctx context.Context, db *sql.DB, _ report.Endpoint) error { return db.PingContext(ctx) })
	return report.First(
		err,
		report.Same([]string{user, database}, []string{to.User, to.Database}),
		report.Same(string(told(refused(ctx, wrong)).Code), "28P01"),
	)
}

// encrypted connects by this authority, and not by another one.
func encrypted(ctx context.Context, to report.Endpoint) error {
	ask := with(1, func(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
		var one int
		return report.First(db.QueryRowContext(ctx, "SELECT 1").Scan(&one), report.Same(one, 1))
	})
	trusted, other := to, to
	trusted.CA, other.CA = report.TrustedCA, report.OtherCA
	var unknown x509.UnknownAuthorityError
	err := ask(ctx, trusted)
	return report.First(err, report.Same(errors.As(ask(ctx, other), &unknown), true))
}

func prepared(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	double, err := db.PrepareContext(ctx, "SELECT $1::integer * 2")
	if err != nil {
		return err
	}
	for n := range 20 {
		var answer int
		var word string
		err := report.First(
			double.QueryRowContext(ctx, n).Scan(&answer),
			db.QueryRowContext(ctx, "SELECT $1::text || 'n'", fmt.Sprint(n)).Scan(&word),
			report.Same([]any{answer, word}, []any{2 * n, fmt.Sprint(n, "n")}),
		)
		if err != nil {
			return err
		}
	}
	return double.Close()
}

func transactions(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	insert := func(on *sql.Tx, id int) error {
		_, err := on.ExecContext(ctx, "INSERT INTO "+report.Items+" VALUES ($1, 'note')", id)
		return err
	}
	if _, err := db.ExecContext(ctx, "DELETE FROM "+report.Items); err != nil {
		return err
	}
	first, err := db.BeginTx(ctx, nil)
	if err := report.First(err, insert(first, 1), first.Rollback()); err != nil {
		return err
	}
	second, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err := report.First(err, insert(second, 1)); err != nil {
		return err
	}
	_, savepoint := second.ExecContext(ctx, "SAVEPOINT here")
	again := insert(second, 1)
	_, back := second.ExecContext(ctx, "ROLLBACK TO here")
	var count int
	return report.First(
		savepoint,
		report.Same(string(told(again).Code), "23505"),
		back,
		insert(second, 2),
		second.Commit(),
		db.QueryRowContext(ctx, "SELECT count(*) FROM "+report.Items).Scan(&count),
		report.Same(count, 2),
	)
}

func copies(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	if _, err := db.ExecContext(ctx, "DELETE FROM "+report.Items); err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	into, err := tx.PrepareContext(ctx, "COPY "+report.Items+" (id, note) FROM STDIN")
	if err != nil {
		return err
	}
	for n := 1; n <= 1000; n++ {
		if _, err := into.ExecContext(ctx, n, fmt.Sprintf("note %d é", n)); err != nil {
			return err
		}
	}
	_, err = into.ExecContext(ctx)
	var count, sum int
	same := "SELECT count(*), sum(id) FROM " + report.Items + " WHERE note = 'note ' || id || ' é'"
	return report.First(
		err,
		into.Close(),
		tx.Commit(),
		db.QueryRowContext(ctx, same).Scan(&count, &sum),
		report.Same([]int{count, sum}, []int{1000, 500500}),
	)
}

func notify(ctx context.Context, db *sql.DB, to report.Endpoint) error {
	listener := pq.NewListener(addressOf(to), time.Second, time.Second, nil)
	defer listener.Close()
	if err := listener.Listen(report.Client); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "SELECT pg_notify($1, 'hello')", report.Client); err != nil {
		return err
	}
	select {
	case heard := <-listener.Notify:
		if heard == nil {
			return errors.New("the listener has connected anew")
		}
		return report.Same(heard.Extra, "hello")
	case <-time.After(to.NotifyWait):
		return errors.New("no notification came")
	}
}

func cancel(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	sleeping, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, 1)
	go func() {
		// Only a context that ends makes the driver send a cancel request.
		_, err := db.ExecContext(sleeping, report.Sleep)
		failed <- err
	}()
	ask := func() (running int, err error) {
		err = db.QueryRowContext(ctx, report.Running).Scan(&running)
		return
	}
	if err := report.UntilRunning(ask); err != nil {
		return err
	}
	stop()
	if err := <-failed; !errors.Is(err, context.Canceled) && told(err).Code != "57014" {
		return fmt.Errorf("it ended otherwise: %w", err)
	}
	// The driver asks and does not wait for the server's word.
	for {
		running, err := ask()
		if err != nil || running == 0 {
			return err
		}
	}
}

func types(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	moment := time.Date(2026, 2, 28, 23, 59, 59, 123456000, time.UTC)
	day := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)
	code := "01234567-89ab-cdef-0123-456789abcdef"
	sent := []any{int64(1), int64(-32768), int64(9007199254740993), "1234.5600", 0.1, true, "it's é\n", []byte{0, 1, 92, 255}, code}
	sent = append(sent, day, moment, `{"a": [1, null, "é"]}`)
	if _, err := db.ExecContext(ctx, "DELETE FROM "+report.Types); err != nil {
		return err
	}
	into := "INSERT INTO " + report.Types + " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
	if _, err := db.ExecContext(ctx, into, sent...); err != nil {
		return err
	}
	var id, small, big int64
	var exact, words, uuid, document string
	var double float64
	var truth bool
	var raw []byte
	var foundDay, foundMoment time.Time
	columns := "SELECT id, small, big, exact, double, truth, words, bytes, code, day, moment, document FROM "
	row := db.QueryRowContext(ctx, columns+report.Types)
	err := row.Scan(&id, &small, &big, &exact, &double, &truth, &words, &raw, &uuid, &foundDay, &foundMoment, &document)
	got := []any{id, small, big, exact, double, truth, words, raw, uuid, foundDay.UTC(), foundMoment.UTC(), document}
	return report.First(err, report.Same(got, sent), report.Same(json.Valid([]byte(document)), true))
}

func arrays(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	numbers := []sql.NullInt64{{Int64: 1, Valid: true}, {}, {Int64: -9007199254740993, Valid: true}}
	text := func(value string) sql.NullString { return sql.NullString{String: value, Valid: true} }
	texts := []sql.NullString{text("a"), {}, text(""), text("NULL"), text(`{"x", \y}`)}
	var foundNumbers []sql.NullInt64
	var foundTexts []sql.NullString
	row := db.QueryRowContext(ctx, "SELECT $1::bigint[], $2::text[]", pq.Array(numbers), pq.Array(texts))
	err := row.Scan(pq.Array(&foundNumbers), pq.Array(&foundTexts))
	return report.First(err, report.Same(foundNumbers, numbers), report.Same(foundTexts, texts))
}

func failures(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	if _, err := db.ExecContext(ctx, "DELETE FROM "+report.Items); err != nil {
		return err
	}
	insert := func() error {
		_, err := db.ExecContext(ctx, "INSERT INTO "+report.Items+" VALUES ($1, 'note')", 1)
		return err
	}
	if err := insert(); err != nil {
		return err
	}
	unique := told(insert())
	_, err := db.ExecContext(ctx, "SELECT 1 FROM WHERE")
	syntax := told(err)
	var one int
	return report.First(
		report.Same([]string{string(unique.Code), unique.Constraint}, []string{"23505", report.Items + "_pkey"}),
		report.Same([]string{string(syntax.Code), syntax.Position}, []string{"42601", "15"}),
		db.QueryRowContext(ctx, "SELECT 1").Scan(&one),
	)
}

func pool(ctx context.Context, db *sql.DB, _ report.Endpoint) error {
	answers, errs := make([]int, 40), make([]error, 40)
	var all sync.WaitGroup
	for n := range 40 {
		all.Add(1)
		go func() {
			defer all.Done()
			errs[n] = db.QueryRowContext(ctx, "SELECT $1::integer", n).Scan(&answers[n])
		}()
	}
	all.Wait()
	for n, answer := range answers {
		errs = append(errs, report.Same(answer, n))
	}
	return report.First(errs...)
}

type loop struct {
	db     *sql.DB
	insert *sql.Stmt
}

func open(ctx context.Context, to report.Endpoint) (report.Loop, error) {
	db, err := sql.Open("postgres", addressOf(to))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	insert, err := db.PrepareContext(ctx, "INSERT INTO "+report.Table+" (n) VALUES ($1)")
	return loop{db, insert}, err
}

func (l loop) Insert(ctx context.Context, n int) error {
	_, err := l.insert.ExecContext(ctx, n)
	return err
}

func (l loop) Transaction(ctx context.Context, n int) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.StmtContext(ctx, l.insert).ExecContext(ctx, n)
	var max int
	return report.First(
		err,
		tx.QueryRowContext(ctx, "SELECT max(n) FROM "+report.Table).Scan(&max),
		report.Same(max, n),
		tx.Commit(),
	)
}

func (l loop) Total(ctx context.Context) (count, max int, err error) {
	err = l.db.QueryRowContext(ctx, "SELECT count(*), max(n) FROM "+report.Table).Scan(&count, &max)
	return
}

func (l loop) Close() { l.db.Close() }

func main() {
	report.Run([]report.Feature{
		{Name: "connect", Work: with(2, connect)},
		{Name: "tls", Work: encrypted},
		{Name: "prepared", Work: with(2, prepared)},
		{Name: "transactions", Work: with(2, transactions)},
		{Name: "copy", Work: with(2, copies)},
		{Name: "notify", Work: with(2, notify)},
		{Name: "cancel", Work: with(2, cancel)},
		{Name: "types", Work: with(2, types)},
		{Name: "arrays", Work: with(2, arrays)},
		{Name: "errors", Work: with(2, failures)},
		{Name: "pool", Work: with(4, pool)},
	}, open)
}
