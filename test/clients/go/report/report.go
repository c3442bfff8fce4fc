// Package report has one task: run the features of a Go driver through the proxy and directly, then its loop of numbered writes, and print
// a JSON line for each.
//
// A feature that works through the proxy is run directly only where that is asked for: the direct run says whether a failure is the program's own.
package report

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
)

const think = 200 * time.Millisecond

// What the tables of this client begin with, and the statement that a feature cancels.
var (
	Client  = os.Getenv("CLIENT")
	Items   = Client + "_items"
	Types   = Client + "_types"
	Table   = Client + "_loop"
	Sleep   = "SELECT pg_sleep(30) /* cancel " + Client + " */"
	Running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '" + Sleep + "'"
)

// The authority that has certified the proxy and the server, and one that has not: files.
var (
	TrustedCA = os.Getenv("TRUSTED_CA")
	OtherCA   = os.Getenv("OTHER_CA")
)

// Endpoint is where a feature connects, and how long it waits for a notification.
type Endpoint struct {
	Host, User, Password, Database string
	Port                           int
	NotifyWait                     time.Duration
	// CA verifies the server by this authority; empty: as the driver does by itself.
	CA string
}

// Feature is one row of the table; a nil Work is what the driver does not have.
type Feature struct {
	Name string
	Work func(context.Context, Endpoint) error
}

// Loop writes numbers, each acknowledged when its call returns nil.
type Loop interface {
	Insert(ctx context.Context, n int) error
	Transaction(ctx context.Context, n int) error
	Total(ctx context.Context) (count, max int, err error)
	Close()
}

// Line is what is printed.
type Line struct {
	Via          string `json:"via,omitempty"`
	Feature      string `json:"feature,omitempty"`
	Ok           *bool  `json:"ok"`
	Detail       string `json:"detail,omitempty"`
	Begun        bool   `json:"begun,omitempty"`
	Acknowledged int    `json:"acknowledged"`
}

// Run runs all of it.
func Run(features []Feature, open func(context.Context, Endpoint) (Loop, error)) {
	for _, feature := range features {
		if feature.Work == nil {
			say(Line{Via: "proxy", Feature: feature.Name})
		} else if !told("proxy", feature) || os.Getenv("DIRECT") == "all" {
			told("direct", feature)
		}
	}
	line := Line{Via: "proxy", Feature: "cutover"}
	line.outcome(write(open, &line.Acknowledged))
	say(line)
}

// told runs the feature, tells its outcome, and answers whether it worked.
func told(via string, feature Feature) bool {
	line := Line{Via: via, Feature: feature.Name}
	line.outcome(feature.Work(context.Background(), endpointOf(via)))
	say(line)
	return *line.Ok
}

func write(open func(context.Context, Endpoint) (Loop, error), acknowledged *int) error {
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	ctx := context.Background()
	loop, err := open(ctx, endpointOf("proxy"))
	if err != nil {
		return err
	}
	defer loop.Close()
	for {
		select {
		case <-over:
			return nil
		case <-time.After(think):
		}
		n := *acknowledged + 1
		if n%2 == 0 {
			err = loop.Transaction(ctx, n)
		} else {
			err = loop.Insert(ctx, n)
		}
		if err != nil {
			return err
		}
		*acknowledged = n
		count, max, err := loop.Total(ctx)
		if err := First(err, Same([]int{count, max}, []int{n, n})); err != nil {
			return err
		}
		if n == 2 {
			say(Line{Begun: true})
		}
	}
}

func (line *Line) outcome(err error) {
	ok := err == nil
	line.Ok = &ok
	if err != nil {
		line.Detail = err.Error()
	}
}

func endpointOf(via string) Endpoint {
	upper := strings.ToUpper(via)
	port, _ := strconv.Atoi(os.Getenv(upper + "_PORT"))
	waitMs, _ := strconv.Atoi(os.Getenv("NOTIFY_WAIT_MS_" + upper))
	return Endpoint{
		Host:       os.Getenv("PGHOST"),
		User:       os.Getenv("PGUSER"),
		Password:   os.Getenv("PGPASSWORD"),
		Database:   os.Getenv("PGDATABASE"),
		Port:       port,
		NotifyWait: time.Duration(waitMs) * time.Millisecond,
	}
}

// Same is an error unless both are equal.
func Same(found, expected any) error {
	if reflect.DeepEqual(found, expected) {
		return nil
	}
	return fmt.Errorf("found %v, expected %v", found, expected)
}

// First answers the first error there is.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// UntilRunning waits until the server runs Sleep; ask runs Running.
func UntilRunning(ask func() (int, error)) error {
	for {
		running, err := ask()
		if err != nil || running == 1 {
			return err
		}
		time.Sleep(think)
	}
}

func say(line Line) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}
