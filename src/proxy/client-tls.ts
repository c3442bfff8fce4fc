/**
 * One task: encrypt connections of clients, with the certificate that was loaded with the configuration.
 *
 * A new configuration makes a new one of these; connections that were encrypted by the old one stay as they are.
 */
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { ClientTls } from '../config/tls.js';
import { channelBinding } from './channel-binding.js';

/** What PostgreSQL's clients name by ALPN since 17; without it a direct handshake is refused. */
const ALPN = 'postgresql';

export class ClientEncryption {
  /** who comes without TLS is refused */
  readonly required: boolean;
  /** clients are asked for certificates, which only this authority issues */
  readonly asksCertificates: boolean;
  /** what a SCRAM exchange over these connections may be bound to; null: nothing */
  readonly binding: Buffer | null;
  /** never listens: it does the handshakes of sockets it is handed (Node documentation, event `connection` of tls.Server) */
  readonly #server: Server;
  readonly #handshakes = new Map<string, (socket: TLSSocket) => void>();

  /** @param timeoutMs longest time of one handshake */
  constructor({ pair, required, authority }: ClientTls, timeoutMs: number) {
    this.required = required;
    this.asksCertificates = authority !== undefined;
    this.binding = channelBinding(pair.certificate.pem);
    this.#server = createServer({
      cert: pair.certificate.pem,
      key: pair.privateKey.pem,
      ALPNProtocols: [ALPN],
      handshakeTimeout: timeoutMs,
      // Whether a certificate that is missing or wrong is a reason to refuse, the login decides: it can say so.
      ...(authority && { ca: authority.pem, requestCert: true, rejectUnauthorized: false }),
    });
    this.#server.on('secureConnection', (socket) => this.#handshakes.get(endsOf(socket))?.(socket));
    // Whoever waits for the handshake hears that its socket is closed.
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
  }

  /**
   * Does the handshake. What was read too far must have been put back (`unshift`) before.
   *
   * @param direct the client began with the handshake, and so must name the protocol in it
   * @throws Error when it fails; the socket is closed then
   */
  async encrypt(bare: Socket, direct: boolean): Promise<TLSSocket> {
    // Its close has been told already, or has no ends to be told apart by.
    if (bare.destroyed) throw new Error('the connection ended before its TLS handshake');
    const ends = endsOf(bare);
    const socket = await new Promise<TLSSocket>((resolve, reject) => {
      this.#handshakes.set(ends, resolve);
      bare.once('close', () => {
        reject(new Error('the TLS handshake failed'));
      });
      this.#server.emit('connection', bare);
    }).finally(() => this.#handshakes.delete(ends));
    if (!direct || socket.alpnProtocol === ALPN) return socket;
    socket.destroy();
    throw new Error('a direct TLS handshake without the protocol "postgresql" in it');
  }
}

/** Both ends of a TCP connection: no two that are open have the same. */
function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return JSON.stringify([remoteAddress, remotePort, localAddress, localPort]);
}
