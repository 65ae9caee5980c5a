'use strict';

// The cases of the Node client, by name: a function that takes an Env, and how many seconds it may take.

const crypto = require('crypto');
const { Consumer, Sink, check, same, sleep, wait } = require('./env');

const cases = new Map();
const add = (name, body, seconds = 60) => cases.set(name, { body, seconds });

// The first retry comes after 10 s; the client asks for the retry topic's route every second here.
const FIRST_RETRY = 20;

add('retry', async env => {
  const topic = await env.topic(2);
  const sink = new Sink();
  await env.consumer(env.fresh('CG'), topic, m => {
    const one = sink.add(m);
    return one.text === 'retry me' && one.reconsumed === 0 ? Consumer.ACTION_RETRY : undefined;
  });
  await env.send(topic, 'retry me', { tags: 'tag', keys: ['key'], properties: { colour: 'blue' } });
  await env.send(topic, 'fine');
  await wait('both messages', 20, () => sink.seen.length >= 2);
  const took = await wait('the retry', FIRST_RETRY, () => sink.seen.length >= 3);
  const [first, again] = sink.seen.filter(m => m.text === 'retry me');
  check(again.reconsumed === 1, () => `reconsume times ${again.reconsumed}`);
  check(again.tags === 'tag' && again.keys === 'key' && again.properties.colour === 'blue', () => JSON.stringify(again));
  check(again.topic === topic, () => `the retry's topic is ${again.topic}`);
  check(again.at - first.at >= 9500, () => `the retry came after ${again.at - first.at} ms`);
  env.note(`retry ${took.toFixed(1)} s after the failure`);
}, 90);

add('dead-letter', async env => {
  const topic = await env.topic(2);
  const group = env.fresh('CG');
  const sink = new Sink();
  await env.consumer(group, topic, m => {
    sink.add(m);
    throw new Error('wanted: every time fails');
  }, '*', { maxReconsumeTimes: 1 });
  await env.send(topic, 'poison', { tags: 'tag', keys: ['key'] });
  await wait('the retry', FIRST_RETRY, () => sink.seen.length >= 2);
  const dead = '%DLQ%' + group;
  await wait('the dead letter', 10, async () => (await env.bounds(dead, 0))[1] > 0);
  const [stored] = await env.pull(dead, 0);
  check(stored.body.toString() === 'poison' && stored.tags === 'tag' && stored.retryTopic === topic, () => JSON.stringify(stored));
  check(sink.seen.length === 2, () => `delivered ${sink.seen.length} times`);
}, 90);

add('push-concurrent', async env => {
  const topic = await env.topic(4);
  const sink = new Sink();
  // Everybody who copies the client's examples signs; a server without access control takes no notice.
  const signed = { accessKeyId: 'an-access-key', accessKeySecret: 'a-secret-key' };
  await env.consumer(env.fresh('CG'), topic, m => void sink.add(m), '*', signed);
  const producer = await env.producer(signed);
  const places = new Map();
  for (let i = 0; i < 100; i++) {
    const r = await env.send(topic, `m${i}`, { tags: `t${i % 3}`, keys: [`k${i}`, 'all'], properties: { colour: 'blau-ü' }, producer });
    check(r.msgId, 'no message id');
    places.set(`m${i}`, r);
  }
  await sink.exactly([...places.keys()]);
  const offsets = {};
  for (const m of sink.seen) {
    const i = Number(m.text.slice(1));
    check(m.tags === `t${i % 3}` && m.keys === `k${i} all` && m.properties.colour === 'blau-ü', () => JSON.stringify(m));
    check(m.topic === topic && m.reconsumed === 0, () => JSON.stringify(m));
    const place = places.get(m.text);
    check(m.queue === Number(place.messageQueue.queueId) && m.offset === place.queueOffset, () => `${JSON.stringify(m)} sent to ${JSON.stringify(place)}`);
    (offsets[m.queue] = offsets[m.queue] || []).push(m.offset);
  }
  check(Object.keys(offsets).length === 4, () => `queues ${Object.keys(offsets)}`);
});

add('tag-filter', async env => {
  const topic = await env.topic(2);
  const [two, one] = [new Sink(), new Sink()];
  await env.consumer(env.fresh('AB'), topic, m => void two.add(m), 'A || B');
  await env.consumer(env.fresh('U'), topic, m => void one.add(m), '日本');
  const wanted = { A: [], B: [], C: [], 日本: [] };
  for (let i = 0; i < 40; i++) {
    const tags = Object.keys(wanted)[i % 4];
    await env.send(topic, `m${i}`, { tags });
    wanted[tags].push(`m${i}`);
  }
  await two.exactly([...wanted.A, ...wanted.B]);
  await one.exactly(wanted.日本);
});

add('sharding-key', async env => {
  const topic = await env.topic(4);
  // The client hashes the key to a queue, and takes any queue when that is number 0.
  const queueOf = key => crypto.createHash('md5').update(key).digest().readUInt32BE() % 4;
  const keys = Array.from({ length: 30 }, (_, i) => `key${i}`).filter(key => queueOf(key) > 0).slice(0, 6);
  for (let i = 0; i < 25; i++) {
    for (const key of keys) {
      const r = await env.send(topic, `${key}:${i}`, { shardingKey: key });
      check(Number(r.messageQueue.queueId) === queueOf(key), () => `${key} went to ${r.messageQueue.queueId}`);
    }
  }
  const sink = new Sink();
  await env.consumer(env.fresh('CG'), topic, m => void sink.add(m));
  await wait('the messages', 30, () => sink.seen.length >= 150);
  for (const key of keys) {
    const mine = sink.bodies.filter(b => b.startsWith(`${key}:`));
    check(mine.length === 25 && mine.every((b, i) => b === `${key}:${i}`), () => `order of ${key}: ${mine}`);
  }
});

add('delay-levels', async env => {
  const topic = await env.topic(2);
  const sink = new Sink();
  await env.consumer(env.fresh('CG'), topic, m => void sink.add(m));
  await env.send(topic, 'warm');
  await wait('the consumer', 20, () => sink.seen.length === 1);
  const sent = {};
  for (const level of [1, 2, 3]) {
    sent[level] = Date.now();
    await env.send(topic, `${level}`, { level });
  }
  await wait('the delayed messages', 60, () => sink.seen.length === 4);
  sink.seen.slice(1).forEach(m => {
    const took = (m.at - sent[m.text]) / 1000;
    const due = { 1: 1, 2: 5, 3: 10 }[m.text];
    env.note(`level ${m.text}: ${took.toFixed(2)} s`);
    check(took >= due - 0.05 && took < due + 15, // were each level the next one, the last would take 30 s
      `level ${m.text} took ${took} s`);
    check(m.topic === topic, () => `delivered with topic ${m.topic}`);
  });
});

add('broadcasting', async env => {
  const topic = await env.topic(4);
  const group = env.fresh('CG');
  const sinks = [new Sink(), new Sink()];
  for (const sink of sinks) {
    await env.consumer(group, topic, m => void sink.add(m), '*', { isBroadcast: true });
  }
  const wanted = await env.sendMany(topic, 'm', 40);
  for (const sink of sinks) {
    await sink.exactly(wanted);
  }
});

add('big-message', async env => {
  const topic = await env.topic(1);
  const sink = new Sink();
  await env.consumer(env.fresh('CG'), topic, m => void sink.add(m));
  // What is above 4 kB is compressed: random text to three quarters, the repeated one to nearly nothing.
  const wanted = [crypto.randomBytes(60000).toString('base64'), 'a'.repeat(700000), 'small', crypto.randomBytes(550000).toString('base64')];
  for (const body of wanted) {
    await env.send(topic, body);
  }
  await wait('the messages', 30, () => sink.seen.length >= wanted.length);
  check(sink.bodies.every((b, i) => b === wanted[i]), () => `lengths ${sink.bodies.map(b => b.length)}`);
}, 90);

add('offsets-persisted', async env => {
  const topic = await env.topic(4);
  const group = env.fresh('CG');
  const [first, second] = [new Sink(), new Sink()];
  const c = await env.consumer(group, topic, m => void first.add(m));
  await first.exactly(await env.sendMany(topic, 'one', 60));
  await wait('the commit', 15, async () => {
    let sum = 0;
    for (let queue = 0; queue < 4; queue++) {
      sum += Math.max(0, await env.committed(group, topic, queue));
    }
    return sum === 60;
  });
  await env.stop(c);
  const two = await env.sendMany(topic, 'two', 40);
  await env.consumer(group, topic, m => void second.add(m));
  await second.exactly(two, 30, 1000);
  check(first.seen.length === 60, () => `the one that left has ${first.seen.length}`);
}, 90);

add('rebalance', async env => {
  const topic = await env.topic(4);
  const group = env.fresh('CG');
  const [a, b] = [new Sink(), new Sink()];
  await env.consumer(group, topic, m => void a.add(m));
  const leaving = await env.consumer(group, topic, m => void b.add(m));
  let round = 0;
  const queues = async () => {
    const prefix = `r${++round}-`;
    await env.sendMany(topic, prefix, 8);
    await sleep(250);
    return [a, b].map(sink => new Set(sink.seen.filter(m => m.text.startsWith(prefix)).map(m => m.queue)));
  };
  await wait('a half of the queues at each', 40, async () => {
    const [x, y] = await queues();
    return x.size === 2 && y.size === 2 && ![...x].some(q => y.has(q));
  });
  await env.stop(leaving);
  const took = await wait('every queue at the one that stays', 40, async () => (await queues())[0].size === 4);
  env.note(`all queues ${took.toFixed(1)} s after the other left`);
}, 120);

add('namespace', async env => {
  // A namespace is a prefix of topics and groups with a percent sign between.
  const namespace = `ns-${env.suffix}`;
  const [topic, group] = [env.fresh('T'), env.fresh('CG')];
  const sink = new Sink();
  await env.topic(2, `${namespace}%${topic}`);
  const producer = await env.producer({ namespace });
  await env.send(topic, 'first', { producer });
  await env.consumer(group, topic, m => {
    const one = sink.add(m);
    return one.reconsumed === 0 ? Consumer.ACTION_RETRY : undefined;
  }, '*', { namespace });
  await wait('the message', 20, () => sink.seen.length >= 1);
  check(sink.seen[0].topic === `${namespace}%${topic}`, () => `topic ${sink.seen[0].topic}`);
  await wait('the retry', FIRST_RETRY, () => sink.seen.length >= 2);
  same('messages', sink.bodies, ['first', 'first']);
}, 90);

module.exports = { cases };
