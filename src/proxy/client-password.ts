/**
 * One task: ask a client to prove who it is by the configured method, and say whether it did.
 *
 * Whoever fails hears the same, whatever was wrong: the question depends on the configuration and the connection, never on the user.
 */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Config } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import * as backend from '../wire/backend.js';
import { FRONTEND } from '../wire/codes.js';
import { FrameError, HEADER_BYTES } from '../wire/frames.js';
import type { PacketReader } from '../wire/packet-reader.js';
import {
  type Credentials,
  type CredentialStore,
  md5AnswerAccepted,
  methodFor,
  plainPasswordAccepted,
} from './credentials.js';
import { asksInClear, type Passthrough } from './passthrough.js';
import type { ProvenCredentials } from './proven-credentials.js';
import { MECHANISM, MECHANISM_PLUS, type Proof, ScramError, ScramServer } from './scram.js';

/** What asking for a password needs of the proxy. */
export interface PasswordContext {
  readonly config: Config;
  readonly credentials: CredentialStore;
  readonly proven: ProvenCredentials;
  readonly passthrough: Passthrough;
}

/** A client that says it is somebody. */
export interface Claimant {
  readonly socket: Socket;
  readonly reader: PacketReader;
  readonly user: string;
  readonly database: string;
  readonly encrypted: boolean;
  /** what ties a login to this TLS connection; null: nothing does */
  readonly binding: Buffer | null;
}

/**
 * Asks, and remembers what its server needs to be shown as well.
 *
 * @returns false when the client could not prove it
 * @throws CutoverError when the exchange breaks the protocol, or nobody can say; an Error when the connection ended
 */
export async function passwordAccepted(client: Claimant, context: PasswordContext): Promise<boolean> {
  const { socket, reader, user, database } = client;
  const { config } = context;
  const credentials = await context.credentials.of(user, database);
  if (asksInClear(config, database, client.encrypted)) {
    const given = await askInClear(client);
    if (context.passthrough.concerns(config, user, database))
      return context.passthrough.accepted(config, user, database, given);
    return plainAccepted(user, given, credentials, context);
  }
  switch (methodFor(config, database)) {
    case 'trust':
      return credentials.known;
    case 'plain':
      return plainAccepted(user, await askInClear(client), credentials, context);
    case 'md5': {
      const salt = randomBytes(4);
      socket.write(backend.authenticationMd5(salt));
      return md5AnswerAccepted(credentials, user, salt, await readPassword(reader));
    }
    case 'scram':
      return scramAccepted(client, credentials, context);
  }
}

function askInClear({ socket, reader }: Claimant): Promise<string> {
  socket.write(backend.AUTHENTICATION_CLEARTEXT);
  return readPassword(reader);
}

async function plainAccepted(
  user: string,
  given: string,
  credentials: Credentials,
  context: PasswordContext,
): Promise<boolean> {
  if (!(await plainPasswordAccepted(credentials, user, given))) return false;
  if (credentials.hash !== undefined) context.proven.learn(credentials.hash, { password: given });
  return true;
}

async function scramAccepted(client: Claimant, credentials: Credentials, context: PasswordContext): Promise<boolean> {
  const { socket, binding } = client;
  const mechanisms = binding === null ? [MECHANISM] : [MECHANISM_PLUS, MECHANISM];
  socket.write(backend.authenticationSasl(mechanisms));
  try {
    const proof = await scramProof(client, mechanisms, credentials);
    if (proof === null || !credentials.known) return false;
    socket.write(backend.authenticationSaslFinal(proof.answer));
    if (credentials.hash !== undefined) context.proven.learn(credentials.hash, { keys: proof.keys });
    return true;
  } catch (error) {
    if (error instanceof ScramError)
      throw new CutoverError('protocol_violation', { problem: error.message }, { cause: error });
    throw error;
  }
}

async function scramProof(
  { socket, reader, binding }: Claimant,
  mechanisms: readonly string[],
  credentials: Credentials,
): Promise<Proof | null> {
  const initial = (await readPasswordMessage(reader)).subarray(HEADER_BYTES);
  const zero = initial.indexOf(0);
  const mechanism = zero < 0 ? '' : initial.toString('latin1', 0, zero);
  if (!mechanisms.includes(mechanism)) throw new ScramError('a SASL mechanism that was not offered');
  const exchange = new ScramServer(mechanism, initial.toString('utf8', zero + 5), binding, credentials.shape);
  socket.write(backend.authenticationSaslContinue(exchange.first));
  const final = (await readPasswordMessage(reader)).toString('utf8', HEADER_BYTES);
  return exchange.finish(final, credentials.verifiers);
}

async function readPassword(reader: PacketReader): Promise<string> {
  const message = await readPasswordMessage(reader);
  return message.toString('utf8', HEADER_BYTES, message.length - 1);
}

async function readPasswordMessage(reader: PacketReader): Promise<Buffer> {
  const { type, bytes } = await reader.message();
  if (type !== FRONTEND.password) throw new FrameError('expected a password message');
  return bytes;
}
