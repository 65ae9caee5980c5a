// Cases and load programs with the real Go client; the driver beside this directory runs them.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

type testCase struct {
	name         string
	body         func(*env)
	seconds      int
	slow         bool
	stockDiffers string
}

// failure is what a check throws; the runner catches it.
type failure string

func fail(format string, args ...interface{}) {
	panic(failure(fmt.Sprintf(format, args...)))
}

func check(ok bool, format string, args ...interface{}) {
	if !ok {
		fail(format, args...)
	}
}

func ok(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func main() {
	rlog.SetLogLevel("error")
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "cases | load | verify")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "cases":
		os.Exit(runCases(os.Args[2:]))
	case "load":
		os.Exit(load(os.Args[2:]))
	case "verify":
		os.Exit(verify(os.Args[2:]))
	case "drain":
		os.Exit(drain(os.Args[2:]))
	case "failover":
		os.Exit(runFailover(os.Args[2:]))
	}
	fmt.Fprintln(os.Stderr, "cases | load | verify | drain | failover, not", os.Args[1])
	os.Exit(2)
}

func runCases(args []string) int {
	f := flag.NewFlagSet("cases", flag.ExitOnError)
	namesrv := f.String("namesrv", "", "address of a name server")
	stock := f.Bool("stock-server", false, "the server is stock RocketMQ")
	slow := f.Bool("slow-cases", false, "also the slow cases")
	only := f.String("case", "", "these cases, separated by commas")
	label := f.String("label", "go", "name in the results")
	suffix := f.String("suffix", fmt.Sprint(time.Now().UnixNano()), "for fresh names")
	parallel := f.Int("parallel", 8, "cases at a time")
	// The driver gives every client the same "--key value" form; Go's flags want = for booleans.
	for i := 0; i+1 < len(args); i++ {
		if args[i] == "--stock" || args[i] == "--slow" {
			args[i] = map[string]string{"--stock": "--stock-server=", "--slow": "--slow-cases="}[args[i]] + args[i+1]
			args = append(args[:i+1], args[i+2:]...)
		}
	}
	ok(f.Parse(args), "arguments")

	var print sync.Mutex
	result := func(status, name string, seconds float64, text string) {
		print.Lock()
		defer print.Unlock()
		fmt.Printf("RESULT\t%s\t%s\t%s\t%.1f\t%s\n", status, name, *label, seconds, strings.Join(strings.Fields(text), " "))
	}
	slots := make(chan struct{}, *parallel)
	var wg sync.WaitGroup
	failed := false
	for _, c := range allCases() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), c.name) || *only == "" && c.slow && !*slow {
			continue
		}
		if *stock && c.stockDiffers != "" {
			result("stock-differs", c.name, 0, c.stockDiffers)
			continue
		}
		c := c
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			e := &env{namesrv: *namesrv, stock: *stock, name: c.name, suffix: *suffix}
			start := time.Now()
			text, good := e.run(c)
			status := "ok"
			if !good {
				status = "FAILED"
				print.Lock()
				failed = true
				print.Unlock()
			}
			result(status, c.name, time.Since(start).Seconds(), text)
			e.closeAll()
		}()
	}
	wg.Wait()
	if failed {
		return 1
	}
	return 0
}
