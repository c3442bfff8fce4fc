/** One task: read what opens a client's connection: requests for encryption, a cancel request or the startup packet. */
import type { Socket } from 'node:net';
import { FrameError } from '../wire/frames.js';
import { PacketReader } from '../wire/packet-reader.js';
import { readStartup, type StartupPacket } from '../wire/startup.js';

type Startup = Extract<StartupPacket, { kind: 'startup' }>;

type Encrypt = (bare: Socket, direct: boolean) => Promise<Socket>;

/** What this needs of the proxy. */
export interface OpeningContext {
  /** a cancel request came in place of a login */
  cancel(processId: number, secret: Buffer): void;
  /** null: no TLS is offered. Answers the socket that takes the bare one's place; `direct`: its handshake came unasked */
  readonly encrypt: Encrypt | null;
}

/** A connection that wants a session. */
export interface Opening {
  readonly socket: Socket;
  readonly reader: PacketReader;
  readonly startup: Startup;
}

/** SSLRequest and GSSENCRequest may each be tried once before the startup packet. */
const PACKETS_MAX = 3;
/** The first byte of a TLS handshake (RFC 8446, 5.1); no startup packet is so long that it could begin with it. */
const TLS_HANDSHAKE = 0x16;

/**
 * Reads up to the startup packet, and encrypts the connection on the way when the client asks for it.
 *
 * @returns null when the connection was not opened for a session (a cancel request)
 * @throws FrameError for what does not belong there; an Error when the connection ended
 */
export async function readOpening(bare: Socket, context: OpeningContext): Promise<Opening | null> {
  const { encrypt } = context;
  let [socket, reader] = [bare, new PacketReader(bare)];
  if (encrypt !== null && (await reader.look()) === TLS_HANDSHAKE) {
    bare.unshift(reader.release());
    socket = await encrypt(bare, true);
    reader = new PacketReader(socket);
  }
  for (let packets = 0; packets < PACKETS_MAX; packets += 1) {
    const packet = readStartup(await reader.startup());
    switch (packet.kind) {
      case 'ssl':
        if (socket !== bare) throw new FrameError('a request for TLS inside of TLS');
        if (encrypt === null) socket.write('N');
        else {
          socket = await agree(bare, reader, encrypt);
          reader = new PacketReader(socket);
        }
        break;
      case 'gssenc':
        socket.write('N');
        break;
      case 'cancel':
        context.cancel(packet.processId, packet.secret);
        return null;
      case 'startup':
        return { socket, reader, startup: packet };
    }
  }
  throw new FrameError('too many requests for encryption');
}

/**
 * Says yes to an SSLRequest and encrypts.
 *
 * Bytes behind the request came in plain text, perhaps from somebody in between, and would be read as if they had come inside of TLS
 * (CVE-2021-23214; PostgreSQL documentation, 54.2.10): that is refused. What comes later is part of the handshake or breaks it.
 */
function agree(bare: Socket, reader: PacketReader, encrypt: Encrypt): Promise<Socket> {
  if (reader.release().length > 0) throw new FrameError('received unencrypted data after SSL request');
  bare.write('S');
  return encrypt(bare, false);
}
