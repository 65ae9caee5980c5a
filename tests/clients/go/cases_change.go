package main

import (
	"context"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// Groups beside a bad one, and messages that an orderly group gives up.
func changeCases() []testCase {
	return []testCase{
		{name: "heartbeat-partial", body: partialHeartbeat, seconds: 90},
		{name: "orderly-dead-letter", body: orderlyDeadLetter, seconds: 90},
	}
}

// partialHeartbeat runs one client with two groups, of which the server refuses one: its name is
// longer than a group's name may be, which this client does not check.
func partialHeartbeat(e *env) {
	topic := e.topic(2)
	want := e.sendMany(topic, "m", 6)
	instance := e.instance()
	long := e.fresh("LONG")
	for len(long) < 200 {
		long += "x"
	}
	good := &sink{}
	ignore := func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		return consumer.ConsumeSuccess, nil
	}
	e.push(long, topic, "*", ignore, consumer.WithInstance(instance))
	e.push(e.fresh("CG"), topic, "*", good.listen, consumer.WithInstance(instance))
	good.exactly(e, want, 40*time.Second, 300*time.Millisecond)
}

func orderlyDeadLetter(e *env) {
	topic := e.topic(1)
	group := e.fresh("CG")
	s, poison := &sink{}, &sink{}
	var c rocketmq.PushConsumer = e.push(group, topic, "*", func(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		if string(msgs[0].Body) == "poison" {
			poison.add(msgs...)
			return consumer.SuspendCurrentQueueAMoment, nil
		}
		s.add(msgs...)
		return consumer.ConsumeSuccess, nil
	}, consumer.WithConsumerOrder(true), consumer.WithMaxReconsumeTimes(1), consumer.WithConsumeMessageBatchMaxSize(1),
		consumer.WithSuspendCurrentQueueTimeMillis(200*time.Millisecond))
	defer c.Shutdown()
	e.send(topic, "poison")
	e.await("the first try", 30*time.Second, func() bool { return poison.size() > 0 })
	// The client goes on with a suspended queue only when another message arrives.
	var want []string
	e.await("the message behind it", 40*time.Second, func() bool {
		want = append(want, e.sendMany(topic, "after", 1)...)
		time.Sleep(300 * time.Millisecond)
		return s.size() > 0
	})
	dead := e.read("%DLQ%"+group, 1)
	check(string(dead[0][0].Body) == "poison", "dead letter %s", dead[0][0].Body)
	e.note("%d tries", poison.size())
}
