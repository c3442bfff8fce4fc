/** One task: take a fresh connection through the startup packet and authentication, up to where a session begins. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { Config } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import * as backend from '../wire/backend.js';
import { FRONTEND } from '../wire/codes.js';
import { FrameError, HEADER_BYTES } from '../wire/frames.js';
import type { PacketReader } from '../wire/packet-reader.js';
import { spokenMinor } from '../wire/startup.js';
import { readOpening, type OpeningContext } from './client-opening.js';
import type { ClientEncryption } from './client-tls.js';
import {
  type Credentials,
  type CredentialStore,
  md5AnswerAccepted,
  methodFor,
  plainPasswordAccepted,
} from './credentials.js';
import { MECHANISM, ScramError, ScramServer } from './scram.js';
import { settingsOf } from './startup-settings.js';
import type { SessionSettings } from './settings.js';

/** What a login needs of the proxy. */
export interface LoginContext extends OpeningContext {
  readonly config: Config;
  readonly credentials: CredentialStore;
  /** null: clients come in plain text */
  readonly encryption: ClientEncryption | null;
  /** @throws CutoverError when the pair is not configured */
  checkRoute(user: string, database: string): void;
}

/** Somebody who is who he says he is. */
export interface Authenticated {
  /** the one to go on with: another than at first when the client asked for TLS */
  readonly socket: Socket;
  readonly user: string;
  readonly database: string;
  /** minor version of the protocol */
  readonly minor: number;
  readonly settings: SessionSettings;
  /** parameters of the startup packet, by name in lower case */
  readonly asked: ReadonlyMap<string, string>;
  readonly reader: PacketReader;
}

/**
 * Authenticates a client; AuthenticationOk is the last message it was sent.
 *
 * @returns null when the connection was not opened for a session (a cancel request)
 * @throws CutoverError with what the client is to be told; an Error when the connection ended
 */
export async function authenticate(bare: Socket, context: LoginContext): Promise<Authenticated | null> {
  const opening = await readOpening(bare, context);
  if (opening === null) return null;
  const { socket, reader, startup } = opening;
  const { parameters } = startup;
  const user = parameters.get('user') ?? '';
  const database = parameters.get('database') ?? user;
  if (user === '') throw new CutoverError('protocol_violation', { problem: 'no user name in startup packet' });
  if (!['', 'false', 'off', 'no', '0'].includes(parameters.get('replication') ?? '')) {
    throw new CutoverError('feature_unsupported', { feature: 'the replication protocol' });
  }
  const unknownOptions = [...parameters.keys()].filter((name) => name.startsWith('_pq_.'));
  const minor = spokenMinor(startup.minor);
  if (startup.minor > minor || unknownOptions.length > 0)
    socket.write(backend.negotiateProtocolVersion(minor, unknownOptions));
  const settings = settingsOf(parameters);
  checkEncryption(socket, context, user, database);
  await checkPassword(socket, reader, context, user, database);
  socket.write(backend.AUTHENTICATION_OK);
  const asked = new Map([...parameters].map(([name, value]) => [name.toLowerCase(), value]));
  return { socket, user, database, minor, settings, asked, reader };
}

/**
 * Who must come encrypted, or with a certificate, is told before a password is asked for.
 *
 * @throws CutoverError `tls_required` | `client_certificate_invalid` | `client_certificate_missing`
 */
function checkEncryption(socket: Socket, context: LoginContext, user: string, database: string): void {
  const { config, encryption } = context;
  if (encryption === null) return;
  const encrypted = socket instanceof TLSSocket ? socket : null;
  if (encryption.required && encrypted === null)
    throw new CutoverError('tls_required', { host: socket.remoteAddress ?? '', user, database });
  if (!encryption.asksCertificates) return;
  if (encrypted?.getPeerX509Certificate() !== undefined) {
    if (encrypted.authorized) return;
    throw new CutoverError('client_certificate_invalid', { problem: String(encrypted.authorizationError) });
  }
  // The nodes of a fleet reach each other's admin database by its password.
  if (database === config.admin.name) return;
  const entry = config.users.find((row) => row.name === user && row.database === database);
  if (entry?.clientCertificateRequired ?? true) throw new CutoverError('client_certificate_missing', { user });
}

async function checkPassword(
  socket: Socket,
  reader: PacketReader,
  context: LoginContext,
  user: string,
  database: string,
): Promise<void> {
  const { config } = context;
  const credentials = await context.credentials.of(user, database);
  let accepted: boolean;
  switch (methodFor(config, database)) {
    case 'trust':
      accepted = credentials.known;
      break;
    case 'plain':
      socket.write(backend.AUTHENTICATION_CLEARTEXT);
      accepted = await plainPasswordAccepted(credentials, await readPassword(reader));
      break;
    case 'md5': {
      const salt = randomBytes(4);
      socket.write(backend.authenticationMd5(salt));
      accepted = md5AnswerAccepted(credentials, user, salt, await readPassword(reader));
      break;
    }
    case 'scram':
      accepted = await scramAccepted(socket, reader, credentials);
      break;
  }
  if (!accepted) throw new CutoverError('login_failed', { user });
  if (database !== config.admin.name) context.checkRoute(user, database);
  else if (user !== config.admin.user) throw new CutoverError('user_missing', { user, database });
}

async function scramAccepted(socket: Socket, reader: PacketReader, credentials: Credentials): Promise<boolean> {
  socket.write(backend.authenticationSasl(MECHANISM));
  const initial = (await readPasswordMessage(reader)).subarray(HEADER_BYTES);
  const zero = initial.indexOf(0);
  const mechanism = zero < 0 ? '' : initial.toString('latin1', 0, zero);
  if (mechanism !== MECHANISM)
    throw new CutoverError('protocol_violation', { problem: 'a SASL mechanism that was not offered' });
  try {
    const exchange = new ScramServer(initial.toString('utf8', zero + 5), credentials.shape);
    socket.write(backend.authenticationSaslContinue(exchange.first));
    const final = (await readPasswordMessage(reader)).toString('utf8', HEADER_BYTES);
    const proof = exchange.finish(final, credentials.verifiers);
    if (proof === null || !credentials.known) return false;
    socket.write(backend.authenticationSaslFinal(proof));
    return true;
  } catch (error) {
    if (error instanceof ScramError)
      throw new CutoverError('protocol_violation', { problem: error.message }, { cause: error });
    throw error;
  }
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
