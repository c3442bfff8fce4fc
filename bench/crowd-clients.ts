/** One task: be many clients, each a bare socket that logs in, is idle, and asks once when it is told to. */
import { connect, type Socket } from 'node:net';
import { endsAnswer } from './bare-client.js';
import { query, startupMessage } from '../src/wire/frontend.js';

const [, , host = '', port = '', user = '', database = '', count = ''] = process.argv;

/** Logins at one time. */
const BATCH = 100;
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const sockets: Socket[] = [];
let lost = 0;
let answered = 0;

function login(): Promise<void> {
  const socket = connect({ host, port: Number(port), noDelay: true });
  sockets.push(socket);
  socket.write(startupMessage({ user, database }));
  socket.once('close', () => (lost += 1));
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    const greeted = (chunk: Buffer): void => {
      if (!endsAnswer(chunk)) return;
      socket.off('data', greeted).on('data', answer);
      resolve();
    };
    socket.on('data', greeted);
  });
}

const answer = (chunk: Buffer): void => {
  if (endsAnswer(chunk)) told();
};

function told(): void {
  answered += 1;
  if (answered === sockets.length) process.send?.({ type: 'answered', atMs: nowMs(), lost });
}

process.on('message', () => {
  answered = 0;
  const ask = query('SELECT 1');
  for (const socket of sockets) socket.write(ask);
  process.send?.({ type: 'asked', atMs: nowMs(), lost });
});

while (sockets.length < Number(count))
  await Promise.all(Array.from({ length: Math.min(BATCH, Number(count) - sockets.length) }, login));
process.send?.({ type: 'loggedIn', atMs: nowMs(), lost });
