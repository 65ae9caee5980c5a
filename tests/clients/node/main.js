'use strict';

// Cases with the Node client `ali-ons`; the driver beside this directory reads the lines that begin with RESULT.

const { cases } = require('./cases');
const { Env, Failed, sleep } = require('./env');

function options(argv) {
  const o = { stock: 'false', parallel: '8', label: 'node', suffix: String(Date.now()) };
  for (let i = 0; i + 1 < argv.length; i += 2) {
    o[argv[i].slice(2)] = argv[i + 1];
  }
  return o;
}

async function run(name, { body, seconds }, o) {
  const env = new Env(o.namesrv, o.stock === 'true', name, o.suffix);
  const start = Date.now();
  let error = '';
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failed(`not done after ${seconds} s`)), seconds * 1000);
  });
  try {
    await Promise.race([body(env), late]);
  } catch (e) {
    error = e instanceof Failed ? e.message : e.stack;
    error += env.errors.length ? ` (of the client: ${env.errors.slice(-3).join('; ')})` : '';
  }
  clearTimeout(timer);
  const text = `${error} ${env.notes.join(', ')}`.split(/\s+/).join(' ').trim();
  console.log(['RESULT', error ? 'FAILED' : 'ok', name, o.label, ((Date.now() - start) / 1000).toFixed(1), text].join('\t'));
  await Promise.race([env.close().catch(() => {}), sleep(5000)]);
  return !error;
}

async function main() {
  const [command, ...rest] = process.argv.slice(2);
  const o = options(rest);
  if (command !== 'cases' || !o.namesrv) {
    console.error('cases --namesrv ADDR [--stock true] [--case NAME,NAME] [--parallel N] [--label L] [--suffix S]');
    return 2;
  }
  const waiting = [...cases].filter(([name]) => !o.case || o.case.split(',').includes(name));
  let good = true;
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      good = (await run(...next, o)) && good;
    }
  };
  await Promise.all(Array.from({ length: Number(o.parallel) }, worker));
  return good ? 0 : 1;
}

main().then(code => process.exit(code), e => {
  console.error(e);
  process.exit(1);
});
