/**
 * One task: an authenticated connection whose bytes pass through unread, for a client that speaks the protocol itself.
 *
 * `pg` makes the connection and proves who we are; from then on the socket belongs to the caller's protocol.
 * Message formats: PostgreSQL documentation, 54.7.
 */
import type { Socket } from 'node:net';
import pg from 'pg';
import { invariant } from '../../errors/invariant.js';
import { connectionTo } from '../driver-socket.js';
import type { Endpoint } from '../endpoint.js';

const CONNECT_TIMEOUT_MS = 5_000;
const GREETING_BYTES_MAX = 64 * 1024;
const READY_FOR_QUERY = 0x5a;
const AUTHENTICATION = 0x52;
const HEADER_BYTES = 5;
/** what a client still has to see after authentication: ParameterStatus, BackendKeyData, ReadyForQuery */
const GREETING_TYPES: readonly number[] = [0x53, 0x4b, READY_FOR_QUERY];

export interface RawConnection {
  /** what the server says to a client it has let in, AuthenticationOk to ReadyForQuery, as bytes */
  readonly greeting: Buffer;
  /**
   * Sends complete messages that end with a Query or Sync, and resolves with everything up to ReadyForQuery.
   *
   * One question at a time.
   *
   * @throws Error when the connection breaks, or the answer has more than `answerBytesMax` bytes; it is closed then
   */
  ask(messages: Uint8Array, answerBytesMax: number): Promise<Buffer>;
  /** May be called again. */
  end(): Promise<void>;
}

/** Connects as the engine. The caller ends the connection; `application_name` is `cutover schema`. */
export async function openRawConnection(endpoint: Endpoint): Promise<RawConnection> {
  const target = await connectionTo(endpoint, CONNECT_TIMEOUT_MS);
  const socket = target.stream();
  const recorded: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => recorded.push(chunk));
  const client = new pg.Client({
    ...target,
    stream: () => socket,
    application_name: 'cutover schema',
    options: '-c client_connection_check_interval=500ms',
  });
  client.on('error', () => undefined);
  await client.connect();
  // From here on no message is for `pg`.
  socket.removeAllListeners('data');
  return {
    greeting: greetingIn(Buffer.concat(recorded)),
    ask: (messages, answerBytesMax) => ask(socket, messages, answerBytesMax),
    end: () => client.end().catch(() => undefined),
  };
}

function greetingIn(recorded: Buffer): Buffer {
  invariant(recorded.length <= GREETING_BYTES_MAX, 'a login takes a few kilobytes');
  const kept: Buffer[] = [];
  for (let at = 0; at + HEADER_BYTES <= recorded.length;) {
    const end = at + 1 + recorded.readInt32BE(at + 1);
    const type = recorded[at] ?? 0;
    const isAuthenticationOk = type === AUTHENTICATION && recorded.readInt32BE(at + HEADER_BYTES) === 0;
    if (isAuthenticationOk || GREETING_TYPES.includes(type)) kept.push(recorded.subarray(at, end));
    at = end;
  }
  return Buffer.concat(kept);
}

function ask(socket: Socket, messages: Uint8Array, answerBytesMax: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const answer: Buffer[] = [];
    const scan = readyScanner();
    let sizeBytes = 0;
    const settle = (outcome: Error | Buffer): void => {
      socket.off('data', onData).off('error', onBroken).off('close', onBroken);
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    const onBroken = (error?: unknown): void => {
      settle(error instanceof Error ? error : new Error('the server closed the connection'));
    };
    const onData = (chunk: Buffer): void => {
      answer.push(chunk);
      sizeBytes += chunk.length;
      if (sizeBytes > answerBytesMax) {
        settle(new Error(`an answer of the server has more than ${answerBytesMax.toString()} bytes`));
        socket.destroy();
      } else if (scan(chunk)) settle(Buffer.concat(answer));
    };
    socket.on('data', onData).once('error', onBroken).once('close', onBroken);
    if (socket.destroyed) onBroken();
    else socket.write(messages);
  });
}

/** Answers true for the chunk that completes a ReadyForQuery; reads headers only, wherever chunks are cut. */
function readyScanner(): (chunk: Buffer) => boolean {
  const header = Buffer.alloc(HEADER_BYTES);
  let headerBytes = 0;
  let bodyBytes = 0;
  return (chunk) => {
    for (let at = 0; at < chunk.length;) {
      if (headerBytes < HEADER_BYTES) {
        const taken = chunk.copy(header, headerBytes, at, at + HEADER_BYTES - headerBytes);
        headerBytes += taken;
        at += taken;
        if (headerBytes < HEADER_BYTES) return false;
        bodyBytes = header.readInt32BE(1) - 4;
      }
      const taken = Math.min(bodyBytes, chunk.length - at);
      bodyBytes -= taken;
      at += taken;
      if (bodyBytes > 0) return false;
      headerBytes = 0;
      if (header[0] === READY_FOR_QUERY) return true;
    }
    return false;
  };
}
