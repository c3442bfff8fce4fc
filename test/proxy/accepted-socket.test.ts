/** One task: what clients send is read past the streams of their sockets, each byte once and for the right one. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { readDirectly } from '../../src/postgres/direct-read.js';
import { readPastStream } from '../../src/proxy/accepted-socket.js';
import { until } from '../support/wait.js';

let listener: Server | undefined;

afterEach(() => {
  listener?.close();
});

interface Pair {
  readonly near: Socket;
  readonly accepted: Socket;
  readonly far: Socket;
}

/** So many connections, and the sockets that are read in the place of the accepted ones. */
async function pairs(count: number): Promise<readonly Pair[]> {
  const accepted: Socket[] = [];
  listener = createServer({ pauseOnConnect: true }, (socket) => accepted.push(socket)).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const made: Pair[] = [];
  for (let index = 0; index < count; index += 1) {
    const near = connect({ port, host: '127.0.0.1' });
    await until('the connection is accepted', () => accepted.length > index);
    const [socket] = accepted.slice(index);
    if (socket === undefined) throw new Error('nothing was accepted');
    made.push({ near, accepted: socket, far: readPastStream(socket) });
  }
  return made;
}

it('the stream has nothing of what is read, and each read stays as it is', async () => {
  const both = await pairs(2);
  const heard = both.map(({ far, accepted }) => {
    expect(far).not.toBe(accepted);
    const chunks: Buffer[] = [];
    far.on('data', () => chunks.push(Buffer.from('by the stream')));
    readDirectly(far, (bytes) => {
      chunks.push(bytes);
      return true;
    });
    far.resume();
    return chunks;
  });
  const textOf = (index: number): string => Buffer.concat(heard[index] ?? []).toString();
  for (let round = 0; round < 3; round += 1)
    for (const [index, { near }] of both.entries()) {
      const before = textOf(index).length;
      near.write(`${index.toString()}${round.toString()}`.repeat(3_000));
      await until('it is read', () => textOf(index).length === before + 6_000);
    }
  expect(textOf(0)).toBe(['00', '01', '02'].map((text) => text.repeat(3_000)).join(''));
  expect(textOf(1)).toBe(['10', '11', '12'].map((text) => text.repeat(3_000)).join(''));
  for (const { near } of both) near.destroy();
});

it('until somebody takes the bytes the stream has them; while it is paused nothing is read', async () => {
  const [pair] = await pairs(1);
  if (pair === undefined) throw new Error('there is one');
  const { near, far } = pair;
  near.write('login');
  const [first] = (await once(far.resume(), 'data')) as [Buffer];
  expect(first.toString()).toBe('login');
  far.pause();
  let read = '';
  readDirectly(far, (bytes) => (read += bytes.toString()) !== '');
  near.write('query');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(read).toBe('');
  far.resume();
  await until('it is read', () => read === 'query');
  near.end();
  await once(far, 'end');
  far.end();
  await once(far, 'close');
});

it('a socket that is not as expected stays, and is read through its stream', async () => {
  const [pair] = await pairs(1);
  if (pair === undefined) throw new Error('there is one');
  const { near, far, accepted } = pair;
  // It has no handle any more.
  expect(readPastStream(accepted)).toBe(accepted);
  const strange = Object.assign(Object.create(accepted) as Socket, { _handle: { readStop: () => undefined } });
  expect(readPastStream(strange)).toBe(strange);
  far.destroy();
  near.destroy();
});
