package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// inFlight is how many messages an asynchronous producer has on the way at most.
const inFlight = 64

// load sends while the server may die and come back, and writes down what was acked. No message is sent
// twice, so a body that verify finds twice is the server's doing.
func load(args []string) int {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	namesrv := f.String("namesrv", "", "address of a name server")
	topic := f.String("topic", "", "topic to create and use")
	queues := f.Int("queues", 4, "queues")
	syncs := f.Int("sync", 2, "synchronous producers")
	asyncs := f.Int("async", 1, "asynchronous producers")
	seconds := f.Int("seconds", 10, "duration")
	size := f.Int("size", 100, "bytes of a body")
	timeout := f.Int("timeout-ms", 3000, "of one send")
	rate := f.Int("rate", 1000000, "messages a second in all")
	run := f.String("run", "go", "prefix of the producers' ids")
	out := f.String("out", "", "file for what was acked")
	ok(f.Parse(args), "arguments")

	e := &env{namesrv: *namesrv, name: "load", suffix: strconv.FormatInt(time.Now().UnixNano(), 36)}
	e.create(*topic, *queues)
	qs := e.queues(*topic)
	file, err := os.Create(*out)
	ok(err, "output file")
	w := bufio.NewWriter(file)
	var mu sync.Mutex
	closed := false
	var acked, failed int64
	ack := func(key string, r *primitive.SendResult, err error) bool {
		if err != nil || r.Status != primitive.SendOK {
			atomic.AddInt64(&failed, 1)
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if closed {
			return true
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", *topic, r.MessageQueue.QueueId, r.QueueOffset, key)
		if acked++; acked%100 == 0 {
			w.Flush()
		}
		return true
	}
	end := time.Now().Add(time.Duration(*seconds) * time.Second)
	pause := time.Second * time.Duration(*syncs+*asyncs) / time.Duration(*rate)
	var wg sync.WaitGroup
	for k := 0; k < *syncs+*asyncs; k++ {
		isSync := k < *syncs
		id := fmt.Sprintf("%s-s%d", *run, k)
		if !isSync {
			id = fmt.Sprintf("%s-a%d", *run, k-*syncs)
		}
		p := e.newProducer(producer.WithQueueSelector(producer.NewManualQueueSelector()), producer.WithRetry(0),
			producer.WithSendMsgTimeout(time.Duration(*timeout)*time.Millisecond))
		wg.Add(1)
		go func() {
			defer wg.Done()
			room := make(chan struct{}, inFlight)
			next := time.Now()
			for seq := 0; time.Now().Before(end); seq++ {
				key := fmt.Sprintf("%s:%d", id, seq)
				body := key + " "
				if len(body) < *size {
					body += strings.Repeat("x", *size-len(body))
				}
				m := primitive.NewMessage(*topic, []byte(body))
				m.Queue = qs[seq%len(qs)]
				if isSync {
					r, err := p.SendSync(context.Background(), m)
					if !ack(key, r, err) {
						time.Sleep(50 * time.Millisecond)
					}
				} else {
					room <- struct{}{}
					err := p.SendAsync(context.Background(), func(_ context.Context, r *primitive.SendResult, err error) {
						ack(key, r, err)
						<-room
					}, m)
					if err != nil {
						<-room
						atomic.AddInt64(&failed, 1)
						time.Sleep(50 * time.Millisecond)
					}
				}
				next = next.Add(pause)
				if wait := time.Until(next); wait > time.Millisecond {
					time.Sleep(wait)
				}
			}
			// The last callbacks come within the send timeout.
			last := time.After(time.Duration(*timeout)*time.Millisecond + 2*time.Second)
			for i := 0; i < inFlight; i++ {
				select {
				case room <- struct{}{}:
				case <-last:
					return
				}
			}
		}()
	}
	wg.Wait()
	mu.Lock()
	closed = true
	ok(w.Flush(), "write")
	ok(file.Close(), "write")
	n := acked
	mu.Unlock()
	fmt.Printf("{\"acked\":%d,\"failed\":%d,\"seconds\":%d}\n", n, atomic.LoadInt64(&failed), *seconds)
	if n == 0 {
		return 1
	}
	return 0
}

type place struct {
	queue  int
	offset int64
}

type report struct {
	OK              bool     `json:"ok"`
	Acked           int      `json:"acked"`
	AckedTwice      int      `json:"acked_twice"`
	Read            int      `json:"read"`
	Missing         int      `json:"missing"`
	Duplicates      int      `json:"duplicates"`
	Moved           int      `json:"moved"`
	OrderSync       int      `json:"order_sync"`
	OrderAsync      int      `json:"order_async"`
	Holes           int      `json:"holes"`
	NotAckedPresent int      `json:"not_acked_present"`
	Examples        []string `json:"examples"`
}

func (r *report) count(n *int, format string, args ...interface{}) {
	*n++
	if len(r.Examples) < 20 {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

func verify(args []string) int {
	f := flag.NewFlagSet("verify", flag.ExitOnError)
	namesrv := f.String("namesrv", "", "address of a name server")
	files := f.String("acked", "", "files that load wrote, separated by commas")
	topic := f.String("topic", "", "another topic to read")
	asyncOrder := f.String("async-order", "true", "false: the order of asynchronous messages does not count")
	ok(f.Parse(args), "arguments")
	rep := &report{Examples: []string{}}
	acked := map[string]place{}
	topics := map[string]bool{}
	if *topic != "" {
		topics[*topic] = true
	}
	for _, name := range strings.Split(*files, ",") {
		data, err := os.ReadFile(name)
		ok(err, "acked messages")
		for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
			p := strings.Split(line, "\t")
			if len(p) != 4 {
				continue
			}
			queue, _ := strconv.Atoi(p[1])
			offset, _ := strconv.ParseInt(p[2], 10, 64)
			key := p[0] + "/" + p[3]
			if _, twice := acked[key]; twice {
				rep.AckedTwice++
			}
			acked[key] = place{queue, offset}
			topics[p[0]] = true
		}
	}
	rep.Acked = len(acked)
	e := &env{namesrv: *namesrv, name: "verify", suffix: strconv.FormatInt(time.Now().UnixNano(), 36)}
	seen := map[string]bool{}
	names := []string{}
	for t := range topics {
		names = append(names, t)
	}
	sort.Strings(names)
	for i, t := range names {
		c := e.newPull(e.fresh("CG"+strconv.Itoa(i)), t)
		for _, q := range e.queues(t) {
			all, err := readAll(c, q)
			if err != nil {
				rep.count(&rep.Holes, "hole: %v", err)
				continue
			}
			last := map[string]int{}
			for _, m := range all {
				rep.Read++
				body := strings.SplitN(string(m.Body), " ", 2)[0]
				key := t + "/" + body
				if seen[key] {
					rep.count(&rep.Duplicates, "duplicate: %s at %d/%d", body, q.QueueId, m.QueueOffset)
				}
				seen[key] = true
				if p, is := acked[key]; !is {
					rep.NotAckedPresent++
				} else if p.queue != q.QueueId || p.offset != m.QueueOffset {
					rep.count(&rep.Moved, "moved: %s at %d/%d, acked as %d/%d", body, q.QueueId, m.QueueOffset, p.queue, p.offset)
				}
				colon := strings.LastIndex(body, ":")
				if colon < 0 {
					rep.count(&rep.Holes, "not of load: %q", body)
					continue
				}
				seq, _ := strconv.Atoi(body[colon+1:])
				if before, is := last[body[:colon]]; is && before >= seq {
					n := &rep.OrderAsync
					if strings.Contains(body[:colon], "-s") {
						n = &rep.OrderSync
					}
					rep.count(n, "order: %s at %d/%d after %d", body, q.QueueId, m.QueueOffset, before)
				}
				last[body[:colon]] = seq
			}
		}
	}
	for key := range acked {
		if !seen[key] {
			rep.count(&rep.Missing, "missing: %s", key)
		}
	}
	rep.OK = rep.Acked > 0 && rep.AckedTwice == 0 && rep.Missing == 0 && rep.Duplicates == 0 && rep.Moved == 0 &&
		rep.OrderSync == 0 && rep.Holes == 0 && (*asyncOrder == "false" || rep.OrderAsync == 0)
	ok(json.NewEncoder(os.Stdout).Encode(rep), "print")
	if !rep.OK {
		return 1
	}
	return 0
}
