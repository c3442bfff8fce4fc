/** One task: open a connection to a PostgreSQL server and log in, up to its first ReadyForQuery. */
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { messageOf } from '../errors/errors.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { openServerSocket } from '../postgres/server-socket.js';
import { errorField, negotiatedDownTo, readParameterStatus } from '../wire/backend.js';
import { BACKEND } from '../wire/codes.js';
import { HEADER_BYTES } from '../wire/frames.js';
import { passwordMessage, saslInitialResponse, saslResponse, startupMessage } from '../wire/frontend.js';
import { PacketReader, type Packet } from '../wire/packet-reader.js';
import { PROTOCOL_MINOR } from '../wire/startup.js';
import { channelBinding } from './channel-binding.js';
import { md5Answer } from './credentials.js';
import { ScramClient } from './scram.js';

/** A server that said it is ready. */
export interface LoggedIn {
  readonly socket: Socket;
  readonly processId: number;
  readonly secret: Buffer;
  readonly parameters: Map<string, string>;
  /** the server has asked for the password and found it right; it may also let in whoever comes from here */
  readonly passwordChecked: boolean;
  /** bytes that came after ReadyForQuery */
  readonly unread: Buffer;
}

/** The server said no. The message is its own sentence. */
export class ServerRefusal extends Error {
  override readonly name = 'ServerRefusal';
  readonly sqlstate: string;

  constructor(error: Buffer) {
    super(errorField(error, 0, error.length, 'M') ?? 'the server refused without a reason');
    this.sqlstate = errorField(error, 0, error.length, 'C') ?? '';
  }
}

/** More messages than any login has; a server that sends more is none. */
const LOGIN_MESSAGES_MAX = 1_000;

/**
 * Connects, with TLS where the endpoint says so, and logs in with what the server asks for: SCRAM-SHA-256, md5, cleartext or nothing.
 *
 * @param timeoutMs bound of connecting, encrypting and logging in together
 * @param settings what the session begins with; what is absent is as the server has it
 * @throws Error with the server's own sentence, as the cause a ServerRefusal where it said no; never with a password
 */
export async function logIn(
  endpoint: Endpoint,
  timeoutMs: number,
  settings: Readonly<Record<string, string>>,
): Promise<LoggedIn> {
  const begun = performance.now();
  const socket = await openServerSocket(endpoint, timeoutMs);
  const problems: Error[] = [];
  const note = (error: Error): unknown => problems.push(error);
  socket.on('error', note);
  const timer = setTimeout(
    () => {
      socket.destroy(new Error(`no answer within ${timeoutMs.toString()} ms`));
    },
    timeoutMs - (performance.now() - begun),
  );
  const reader = new PacketReader(socket);
  try {
    socket.write(startupMessage({ ...settings, user: endpoint.user, database: endpoint.database }, PROTOCOL_MINOR));
    const passwordChecked = await authenticate(socket, reader, endpoint);
    return { ...(await untilReady(socket, reader)), passwordChecked };
  } catch (error) {
    socket.destroy();
    throw new Error(messageOf(problems[0] ?? error), { cause: error });
  } finally {
    clearTimeout(timer);
    // Whoever opened the socket goes on hearing its errors: until the connection has its owner, one must not end the process.
    socket.off('error', note);
  }
}

/** @returns whether a password was asked for */
async function authenticate(socket: Socket, reader: PacketReader, endpoint: Endpoint): Promise<boolean> {
  let scram = null as ScramClient | null;
  let asked = false;
  for (let messages = 0; messages < LOGIN_MESSAGES_MAX; messages += 1) {
    const { type, bytes } = await expect(reader);
    if (type === BACKEND.negotiateProtocolVersion) {
      // A server before 18 goes on with 3.0.
      if (negotiatedDownTo(bytes, PROTOCOL_MINOR)) continue;

      throw new Error('the server offers a version of the protocol that is not spoken here');
    }
    if (type !== BACKEND.authentication) throw new Error('the server answers with an unexpected message');
    const data = bytes.subarray(HEADER_BYTES + 4);
    const method = bytes.readInt32BE(HEADER_BYTES);
    // Numbers: PostgreSQL documentation, 54.7, Authentication*.
    switch (method) {
      case 0:
        return asked;
      case 3:
        asked = true;
        socket.write(passwordMessage(passwordOf(endpoint)));
        break;
      case 5:
        asked = true;
        socket.write(passwordMessage(md5Answer(endpoint.user, passwordOf(endpoint), data.subarray(0, 4))));
        break;
      case 10:
        scram ??= new ScramClient(data.toString('latin1').split('\0'), bindingOf(socket));
        socket.write(saslInitialResponse(scram.mechanism, scram.first));
        break;
      case 11:
        socket.write(saslResponse(await begun(scram).answer(data.toString(), endpoint.keys ?? passwordOf(endpoint))));
        break;
      case 12:
        begun(scram).verify(data.toString());
        asked = true;
        break;
      default:
        throw new Error(`the server asks for authentication method ${method.toString()}, which is not supported`);
    }
  }
  throw new Error('the server does not finish its authentication');
}

/** What a SCRAM exchange over this connection can be bound to; null: nothing. */
function bindingOf(socket: Socket): Buffer | null {
  const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
  return certificate === undefined ? null : channelBinding(certificate.raw);
}

function begun(scram: ScramClient | null): ScramClient {
  if (scram === null) throw new Error('the server goes on with an exchange that it has not begun');
  return scram;
}

function passwordOf(endpoint: Endpoint): string {
  if (endpoint.password === undefined)
    throw new Error(`the server asks for a password of "${endpoint.user}" and none is configured`);
  return endpoint.password;
}

async function untilReady(socket: Socket, reader: PacketReader): Promise<Omit<LoggedIn, 'passwordChecked'>> {
  const parameters = new Map<string, string>();
  let processId = 0;
  let secret: Buffer = Buffer.alloc(4);
  for (let messages = 0; messages < LOGIN_MESSAGES_MAX; messages += 1) {
    const { type, bytes } = await expect(reader);
    switch (type) {
      case BACKEND.parameterStatus: {
        const { name, value } = readParameterStatus(bytes, 0, bytes.length);
        parameters.set(name, value);
        break;
      }
      case BACKEND.backendKeyData:
        processId = bytes.readInt32BE(HEADER_BYTES);
        secret = Buffer.from(bytes.subarray(HEADER_BYTES + 4));
        break;
      case BACKEND.readyForQuery:
        return { socket, processId, secret, parameters, unread: reader.release() };
      default:
        break;
    }
  }
  throw new Error('the server does not become ready');
}

/** The next message; an ErrorResponse is thrown. */
async function expect(reader: PacketReader): Promise<Packet> {
  const packet = await reader.message();
  if (packet.type === BACKEND.errorResponse) throw new ServerRefusal(packet.bytes);
  return packet;
}
