/** One task: take a fresh connection through the startup packet and authentication, up to where a session begins. */
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { CutoverError } from '../errors/errors.js';
import * as backend from '../wire/backend.js';
import type { PacketReader } from '../wire/packet-reader.js';
import { spokenMinor } from '../wire/startup.js';
import { readOpening, type OpeningContext } from './client-opening.js';
import type { ClientEncryption } from './client-tls.js';
import { passwordAccepted, type PasswordContext } from './client-password.js';
import { settingsOf } from './startup-settings.js';
import type { SessionSettings } from './settings.js';

/** What a login needs of the proxy. */
export interface LoginContext extends OpeningContext, PasswordContext {
  /** null: clients come in plain text */
  readonly encryption: ClientEncryption | null;
  /** @throws CutoverError when the pair is not configured */
  checkRoute(user: string, database: string): void;
  /** before a password is asked for. @throws CutoverError when there are too many clients */
  expectRoom(database: string): void;
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
  context.expectRoom(database);
  const settings = settingsOf(parameters);
  checkEncryption(socket, context, user, database);
  if (!certificateNames(socket, context, user, database)) {
    const encrypted = socket instanceof TLSSocket;
    const binding = encrypted ? (context.encryption?.binding ?? null) : null;
    const claimant = { socket, reader, user, database, encrypted, binding };
    if (!(await passwordAccepted(claimant, context))) throw new CutoverError('login_failed', { user });
  }
  checkRoute(context, user, database);
  context.proven.hold(user, database, socket);
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

/** @throws CutoverError when the user may not use the database; only who has proven who it is may hear that */
function checkRoute(context: LoginContext, user: string, database: string): void {
  const { admin } = context.config;
  if (database !== admin.name) context.checkRoute(user, database);
  else if (user !== admin.user) throw new CutoverError('user_missing', { user, database });
}

/** Whether the certificate that a client has shown, and that checkEncryption() has found right, is that of this user. */
function certificateNames(socket: Socket, { config }: LoginContext, user: string, database: string): boolean {
  const identity = config.users.find((row) => row.name === user && row.database === database)?.identity;
  if (identity === undefined || !(socket instanceof TLSSocket) || !socket.authorized) return false;
  // By a DNS name of the certificate, without one by its CN; `*` stands for nobody.
  return socket.getPeerX509Certificate()?.checkHost(identity, { subject: 'default', wildcards: false }) !== undefined;
}
