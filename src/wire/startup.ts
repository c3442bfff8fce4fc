/**
 * One task: read the packets that open a connection, which have a length but no type.
 *
 * Contract: a packet is at most STARTUP_BYTES_MAX long, as PostgreSQL's MAX_STARTUP_PACKET_LENGTH; its length is checked before
 * its body is waited for. Formats and codes: PostgreSQL documentation, 54.7 (StartupMessage, SSLRequest, GSSENCRequest,
 * CancelRequest).
 */
import { FrameError } from './frames.js';

export const STARTUP_BYTES_MAX = 10_000;
/** The newest minor version of protocol 3 that is spoken: that of PostgreSQL 18. */
export const PROTOCOL_MINOR = 2;
const SECRET_BYTES_MAX = 256;

export type StartupPacket =
  | { readonly kind: 'ssl' }
  | { readonly kind: 'gssenc' }
  | { readonly kind: 'cancel'; readonly processId: number; readonly secret: Buffer }
  | {
      readonly kind: 'startup';
      readonly minor: number;
      readonly parameters: ReadonlyMap<string, string>;
    };

/** The minor version to go on with: a newer one is negotiated down, 3.1 stays what it is and means nothing (as in PostgreSQL). */
export function spokenMinor(asked: number): number {
  return Math.min(asked, PROTOCOL_MINOR);
}

/** Length of the secret in BackendKeyData: before 3.2 a client expects four bytes, later ones as many as PostgreSQL 18 sends. */
export function secretBytes(minor: number): number {
  return minor >= 2 ? 32 : 4;
}

/**
 * Bytes of the packet whose first four bytes are given.
 *
 * @throws FrameError when it cannot be one
 */
export function startupLength(head: Buffer): number {
  const length = head.readUInt32BE(0);
  if (length < 8 || length > STARTUP_BYTES_MAX) throw new FrameError('invalid length of startup packet');
  return length;
}

/** @throws FrameError when it is none of the packets that open a connection, or not protocol 3 */
export function readStartup(packet: Buffer): StartupPacket {
  const code = packet.readUInt32BE(4);
  const high = code >>> 16;
  if (high === 1234) return readRequest(packet, code & 0xffff);
  if (high !== 3)
    throw new FrameError(`unsupported frontend protocol ${high.toString()}.${(code & 0xffff).toString()}`);
  return { kind: 'startup', minor: code & 0xffff, parameters: readParameters(packet) };
}

function readRequest(packet: Buffer, code: number): StartupPacket {
  if (code === 5679) return { kind: 'ssl' };
  if (code === 5680) return { kind: 'gssenc' };
  const secretBytes = packet.length - 12;
  if (code === 5678 && secretBytes >= 4 && secretBytes <= SECRET_BYTES_MAX) {
    return { kind: 'cancel', processId: packet.readInt32BE(8), secret: packet.subarray(12) };
  }
  throw new FrameError('unknown request code in startup packet');
}

function readParameters(packet: Buffer): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  let at = 8;
  const text = (): string => {
    const zero = packet.indexOf(0, at);
    if (zero < 0) throw new FrameError('invalid startup packet layout: expected terminator');
    const value = packet.toString('utf8', at, zero);
    at = zero + 1;
    return value;
  };
  while (at < packet.length && packet[at] !== 0) {
    const name = text();
    parameters.set(name, text());
  }
  if (at !== packet.length - 1) throw new FrameError('invalid startup packet layout: expected terminator as last byte');
  return parameters;
}
