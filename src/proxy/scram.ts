/**
 * One task: the arithmetic and the four messages of SCRAM-SHA-256, from either end.
 *
 * RFC 5802 (SCRAM), RFC 7677 (SHA-256), PostgreSQL documentation, 54.3 (what PostgreSQL leaves out: the user name of the
 * exchange is ignored). Both sides may bind the exchange to their TLS connection (`p=tls-server-end-point`).
 */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import type { ScramKeys } from '../config/config.js';

export const MECHANISM = 'SCRAM-SHA-256';
/** the same, bound to the TLS connection */
export const MECHANISM_PLUS = 'SCRAM-SHA-256-PLUS';
const BINDING_TYPE = 'tls-server-end-point';
export const ITERATIONS = 4096;
/** More would let one side keep the other computing. */
const ITERATIONS_MAX = 1_000_000;
const KEY_BYTES = 32;
const derive = promisify(pbkdf2);

/** What a server stores of a password. */
export interface Verifier {
  readonly salt: Buffer;
  readonly iterations: number;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
}

/** What a client that knows the password of a verifier has shown by it. */
export interface Proof {
  readonly verifier: Verifier;
  /** what to send as AuthenticationSASLFinal */
  readonly answer: string;
  /** With it the client could be taken for by any server that has the same verifier. */
  readonly keys: ScramKeys;
}

export class ScramError extends Error {
  override readonly name = 'ScramError';
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function xor(left: Buffer, right: Buffer): Buffer {
  return Buffer.from(left.map((byte, index) => byte ^ (right[index] ?? 0)));
}

/** SASLprep (RFC 4013) as far as it changes passwords people have: other spaces become a space, then NFKC. */
function prepared(password: string): string {
  return password.replace(/[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g, ' ').normalize('NFKC');
}

/** What both sides of an exchange can compute from the password: 4096 rounds, about 3 ms in a thread of the pool. */
async function deriveKeys(password: string, salt: Buffer, iterations: number): Promise<ScramKeys> {
  const salted = await derive(prepared(password), salt, iterations, KEY_BYTES, 'sha256');
  return { salt, iterations, clientKey: hmac(salted, 'Client Key'), serverKey: hmac(salted, 'Server Key') };
}

/** Computes what a server would store. */
export async function deriveVerifier(password: string, salt: Buffer, iterations = ITERATIONS): Promise<Verifier> {
  const { clientKey, serverKey } = await deriveKeys(password, salt, iterations);
  return { salt, iterations, storedKey: sha256(clientKey), serverKey };
}

/** Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (PostgreSQL documentation, 52.9); null if it is none. */
export function parseVerifier(text: string): Verifier | null {
  const match = /^SCRAM-SHA-256\$(\d{1,7}):([^$:]+)\$([^$:]+):([^$:]+)$/.exec(text);
  if (match === null) return null;
  const [, iterations = '', salt = '', storedKey = '', serverKey = ''] = match;
  const verifier = {
    salt: Buffer.from(salt, 'base64'),
    iterations: Number(iterations),
    storedKey: Buffer.from(storedKey, 'base64'),
    serverKey: Buffer.from(serverKey, 'base64'),
  };
  const sound = verifier.storedKey.length === KEY_BYTES && verifier.serverKey.length === KEY_BYTES;
  return sound && verifier.iterations > 0 ? verifier : null;
}

/** True when `password` belongs to the verifier. */
export async function passwordMatches(password: string, verifier: Verifier): Promise<boolean> {
  const derived = await deriveVerifier(password, verifier.salt, verifier.iterations);
  return timingSafeEqual(derived.storedKey, verifier.storedKey);
}

function attribute(message: string, name: string): string {
  const part = message.split(',').find((text) => text.startsWith(`${name}=`));
  if (part === undefined) throw new ScramError(`malformed SCRAM message: attribute "${name}" is missing`);
  return part.slice(2);
}

/** The side that checks. One object serves one exchange. */
export class ScramServer {
  readonly #clientFirstBare: string;
  /** what the client's `c=` must hold */
  readonly #bound: Buffer;
  readonly #nonce: string;
  /** what to send as AuthenticationSASLContinue */
  readonly first: string;

  /**
   * @param mechanism the one the client has chosen
   * @param binding what ties an exchange to this TLS connection; null: nothing was offered that could
   * @param shape salt and rounds to announce; the same for every verifier of finish()
   * @throws ScramError when the message is none, or not of this mechanism
   */
  constructor(
    mechanism: string,
    clientFirst: string,
    binding: Buffer | null,
    shape: Pick<Verifier, 'salt' | 'iterations'>,
  ) {
    const match = /^((n|y|p=[^,]+),[^,]*,)(.+)$/s.exec(clientFirst);
    if (match === null) throw new ScramError('malformed SCRAM message');
    const [, header = '', flag = '', bare = ''] = match;
    const plus = mechanism === MECHANISM_PLUS;
    if (plus !== flag.startsWith('p') || (plus && flag !== `p=${BINDING_TYPE}`))
      throw new ScramError('a channel binding that does not belong to the mechanism');
    // It could bind and was not offered it: somebody in between has taken the offer away (RFC 5802, 6).
    if (flag === 'y' && binding !== null) throw new ScramError('channel binding was offered and has been taken away');
    this.#bound = Buffer.concat([Buffer.from(header), (plus ? binding : null) ?? Buffer.alloc(0)]);
    this.#clientFirstBare = bare;
    this.#nonce = attribute(bare, 'r') + randomBytes(18).toString('base64');
    this.first = `r=${this.#nonce},s=${shape.salt.toString('base64')},i=${shape.iterations.toString()}`;
  }

  /** What the client has shown when it knows the password of one of the verifiers, else null. Takes as long either way. */
  finish(clientFinal: string, verifiers: readonly Verifier[]): Proof | null {
    const proofAt = clientFinal.lastIndexOf(',p=');
    if (proofAt < 0) throw new ScramError('malformed SCRAM message: no proof');
    const withoutProof = clientFinal.slice(0, proofAt);
    const given = Buffer.from(clientFinal.slice(proofAt + 3), 'base64');
    const bound = Buffer.from(attribute(withoutProof, 'c'), 'base64').equals(this.#bound);
    if (given.length !== KEY_BYTES || !bound || attribute(withoutProof, 'r') !== this.#nonce) {
      throw new ScramError('malformed SCRAM message: proof, nonce or channel binding');
    }
    const authMessage = `${this.#clientFirstBare},${this.first},${withoutProof}`;
    let proof: Proof | null = null;
    for (const verifier of verifiers) {
      const { salt, iterations, storedKey, serverKey } = verifier;
      const clientKey = xor(given, hmac(storedKey, authMessage));
      const answer = `v=${hmac(serverKey, authMessage).toString('base64')}`;
      const shown = { verifier, answer, keys: { salt, iterations, clientKey, serverKey } };
      if (timingSafeEqual(sha256(clientKey), storedKey)) proof = shown;
    }
    return proof;
  }
}

/** The side that proves. One object serves one exchange. */
export class ScramClient {
  readonly #bare = `n=*,r=${randomBytes(18).toString('base64')}`;
  /** what `c=` holds */
  readonly #bound: Buffer;
  #serverSignature: Buffer | null = null;
  readonly mechanism: string;
  readonly first: string;

  /**
   * @param offered mechanisms of the server
   * @param binding what ties an exchange to this TLS connection; null: nothing does
   * @throws ScramError when the server offers neither mechanism
   */
  constructor(offered: readonly string[], binding: Buffer | null) {
    const plus = binding !== null && offered.includes(MECHANISM_PLUS);
    if (!plus && !offered.includes(MECHANISM)) throw new ScramError('the server does not offer SCRAM-SHA-256');
    this.mechanism = plus ? MECHANISM_PLUS : MECHANISM;
    // "y" tells a server that does offer it that somebody in between has taken the offer away (RFC 5802, 6).
    const flag = plus ? `p=${BINDING_TYPE}` : binding === null ? 'n' : 'y';
    this.first = `${flag},,${this.#bare}`;
    this.#bound = Buffer.concat([Buffer.from(`${flag},,`), (plus ? binding : null) ?? Buffer.alloc(0)]);
  }

  /**
   * Answers the server's challenge.
   *
   * @param secret a password, or the keys that a client has proven
   * @throws ScramError when it is malformed, not meant for this exchange, or of another verifier than the keys
   */
  async answer(serverFirst: string, secret: string | ScramKeys): Promise<string> {
    const nonce = attribute(serverFirst, 'r');
    const iterations = Number(attribute(serverFirst, 'i'));
    const salt = Buffer.from(attribute(serverFirst, 's'), 'base64');
    if (!nonce.startsWith(attribute(this.#bare, 'r'))) throw new ScramError('the server changed the nonce');
    if (!Number.isInteger(iterations) || iterations < 1 || iterations > ITERATIONS_MAX) {
      throw new ScramError('the server asks for an unacceptable number of rounds');
    }
    const keys = typeof secret === 'string' ? await deriveKeys(secret, salt, iterations) : secret;
    if (!keys.salt.equals(salt) || keys.iterations !== iterations)
      throw new ScramError(
        'the server has another SCRAM verifier than password_hash: only with the same one a client can be passed on',
      );
    const withoutProof = `c=${this.#bound.toString('base64')},r=${nonce}`;
    const authMessage = `${this.#bare},${serverFirst},${withoutProof}`;
    this.#serverSignature = hmac(keys.serverKey, authMessage);
    return `${withoutProof},p=${xor(keys.clientKey, hmac(sha256(keys.clientKey), authMessage)).toString('base64')}`;
  }

  /** @throws ScramError when the server did not prove that it knows the password too */
  verify(serverFinal: string): void {
    const given = Buffer.from(attribute(serverFinal, 'v'), 'base64');
    const expected = this.#serverSignature;
    if (given.length !== expected?.length || !timingSafeEqual(given, expected)) {
      throw new ScramError('the server could not prove that it knows the password');
    }
  }
}
