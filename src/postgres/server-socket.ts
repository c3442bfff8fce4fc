/**
 * One task: open a socket to a PostgreSQL server, encrypted and verified as `tls_verify` says.
 *
 * Everything that connects to a server comes through here: the pools of the proxy, their cancel requests, and the engine. So one rule
 * holds for all. Without TLS the socket is the bare one. Protocol: PostgreSQL documentation, 54.2.10.
 */
import { connect, isIP, type Socket } from 'node:net';
import { checkServerIdentity, connect as connectTls, createSecureContext, type SecureContext } from 'node:tls';
import { KEEP_ALIVE_MS, keepAliveOptions } from '../config/tcp.js';
import type { ServerTls } from '../config/tls.js';
import { messageOf } from '../errors/errors.js';
import { SSL_REQUEST } from '../wire/frontend.js';
import { DirectRead } from './direct-read.js';
import type { Endpoint } from './endpoint.js';

const OFFERED = 0x53;
const NOT_OFFERED = 0x4e;

/**
 * Connects, asks for TLS and does its handshake, all within `timeoutMs`. An error of the socket that comes later is its owner's to hear;
 * until somebody listens it is heard here.
 *
 * @returns the socket, paused
 * @throws Error when the server cannot be reached or is not to be trusted; never with anything secret
 */
export async function openServerSocket(endpoint: Endpoint, timeoutMs: number): Promise<Socket> {
  const { host, port, tls, keepAliveMs = KEEP_ALIVE_MS } = endpoint;
  const read = new DirectRead();
  const bare = connect({ host, port, noDelay: true, ...keepAliveOptions(keepAliveMs), onread: read.options });
  read.opened(bare);
  const timer = setTimeout(() => {
    bare.destroy(new Error(`no answer within ${timeoutMs.toString()} ms`));
  }, timeoutMs);
  try {
    await opened(bare, 'connect');
    if (tls === undefined || tls.verify === 'disabled') return bare;
    if (await offersTls(bare)) return await encrypted(bare, endpoint, tls);
    if (tls.verify !== 'prefer')
      throw new Error(`the server offers no TLS, which tls_verify = "${tls.verify}" asks for`);
    return bare;
  } catch (error) {
    bare.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The first `event`, or why it cannot come. The socket keeps a listener for errors. */
function opened(socket: Socket, event: 'connect' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.once('close', () => {
      reject(new Error('the server closed the connection'));
    });
    socket.once(event, resolve);
  });
}

/**
 * The server's answer to an SSLRequest: one byte.
 *
 * More than one byte before the handshake was sent by somebody in between, to be taken for what the server said inside of TLS
 * (CVE-2021-23222).
 */
function offersTls(socket: Socket): Promise<boolean> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('close', () => {
      reject(new Error('the server closed the connection when it was asked for TLS'));
    });
    socket.once('data', (answer: Buffer) => {
      socket.pause();
      if (answer.length > 1) reject(new Error('the server sent plain text in the place of a TLS handshake'));
      else if (answer[0] === OFFERED) resolve(true);
      else if (answer[0] === NOT_OFFERED) resolve(false);
      else reject(new Error('the server does not know what TLS is'));
    });
    socket.write(SSL_REQUEST);
  });
}

async function encrypted(bare: Socket, { host }: Endpoint, tls: ServerTls): Promise<Socket> {
  const socket = connectTls({
    socket: bare,
    host,
    // A name only: RFC 6066 knows no addresses.
    ...(isIP(host) === 0 ? { servername: host } : {}),
    secureContext: contextOf(tls),
    ALPNProtocols: ['postgresql'],
    rejectUnauthorized: tls.verify !== 'prefer',
    checkServerIdentity: tls.verify === 'verify_full' ? checkServerIdentity : () => undefined,
  });
  try {
    await opened(socket, 'secureConnect');
    return socket;
  } catch (error) {
    socket.destroy();
    throw new Error(`TLS with the server failed: ${messageOf(error)}`, { cause: error });
  }
}

/** Made once for each configuration that was loaded. */
const contexts = new WeakMap<ServerTls, SecureContext>();

function contextOf(tls: ServerTls): SecureContext {
  let context = contexts.get(tls);
  if (context === undefined) {
    const { authority, pair } = tls;
    context = createSecureContext({
      ...(authority && { ca: authority.pem }),
      ...(pair && { cert: pair.certificate.pem, key: pair.privateKey.pem }),
    });
    contexts.set(tls, context);
  }
  return context;
}
