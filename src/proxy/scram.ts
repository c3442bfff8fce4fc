/**
 * One task: the arithmetic and the four messages of SCRAM-SHA-256, from either end.
 *
 * RFC 5802 (SCRAM), RFC 7677 (SHA-256), PostgreSQL documentation, 54.3 (what PostgreSQL leaves out: the user name of the
 * exchange is ignored). Channel binding is not offered: `n,,` and `y,,` are accepted, `p=` is not.
 */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

export const MECHANISM = 'SCRAM-SHA-256';
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

async function saltedPassword(password: string, salt: Buffer, iterations: number): Promise<Buffer> {
  return derive(prepared(password), salt, iterations, KEY_BYTES, 'sha256');
}

/** Computes what a server would store: 4096 rounds, about 3 ms in a thread of the pool. */
export async function deriveVerifier(password: string, salt: Buffer, iterations = ITERATIONS): Promise<Verifier> {
  const salted = await saltedPassword(password, salt, iterations);
  const storedKey = sha256(hmac(salted, 'Client Key'));
  return { salt, iterations, storedKey, serverKey: hmac(salted, 'Server Key') };
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
  readonly #gs2Header: string;
  readonly #nonce: string;
  /** what to send as AuthenticationSASLContinue */
  readonly first: string;

  /**
   * @param shape salt and rounds to announce; the same for every verifier of finish()
   * @throws ScramError when the message is none or asks for channel binding
   */
  constructor(clientFirst: string, shape: Pick<Verifier, 'salt' | 'iterations'>) {
    const match = /^([ny],[^,]*,)(.+)$/s.exec(clientFirst);
    if (match === null) throw new ScramError('malformed SCRAM message, or channel binding asked for');
    const [, gs2Header = '', bare = ''] = match;
    this.#gs2Header = gs2Header;
    this.#clientFirstBare = bare;
    this.#nonce = attribute(bare, 'r') + randomBytes(18).toString('base64');
    this.first = `r=${this.#nonce},s=${shape.salt.toString('base64')},i=${shape.iterations.toString()}`;
  }

  /** The server's proof when the client knows the password of one of the verifiers, else null. Takes as long either way. */
  finish(clientFinal: string, verifiers: readonly Verifier[]): string | null {
    const proofAt = clientFinal.lastIndexOf(',p=');
    if (proofAt < 0) throw new ScramError('malformed SCRAM message: no proof');
    const withoutProof = clientFinal.slice(0, proofAt);
    const proof = Buffer.from(clientFinal.slice(proofAt + 3), 'base64');
    const bound = Buffer.from(attribute(withoutProof, 'c'), 'base64').toString() === this.#gs2Header;
    if (proof.length !== KEY_BYTES || !bound || attribute(withoutProof, 'r') !== this.#nonce) {
      throw new ScramError('malformed SCRAM message: proof, nonce or channel binding');
    }
    const authMessage = `${this.#clientFirstBare},${this.first},${withoutProof}`;
    let answer: string | null = null;
    for (const verifier of verifiers) {
      const clientKey = xor(proof, hmac(verifier.storedKey, authMessage));
      const signature = hmac(verifier.serverKey, authMessage).toString('base64');
      if (timingSafeEqual(sha256(clientKey), verifier.storedKey)) answer = `v=${signature}`;
    }
    return answer;
  }
}

/** The side that proves. One object serves one exchange. */
export class ScramClient {
  readonly #bare = `n=*,r=${randomBytes(18).toString('base64')}`;
  #serverSignature = '';
  readonly first = `n,,${this.#bare}`;

  /** Answers the server's challenge. @throws ScramError when it is malformed or not meant for this exchange */
  async answer(serverFirst: string, password: string): Promise<string> {
    const nonce = attribute(serverFirst, 'r');
    const iterations = Number(attribute(serverFirst, 'i'));
    if (!nonce.startsWith(attribute(this.#bare, 'r'))) throw new ScramError('the server changed the nonce');
    if (!Number.isInteger(iterations) || iterations < 1 || iterations > ITERATIONS_MAX) {
      throw new ScramError('the server asks for an unacceptable number of rounds');
    }
    const salted = await saltedPassword(password, Buffer.from(attribute(serverFirst, 's'), 'base64'), iterations);
    const clientKey = hmac(salted, 'Client Key');
    const withoutProof = `c=biws,r=${nonce}`;
    const authMessage = `${this.#bare},${serverFirst},${withoutProof}`;
    this.#serverSignature = hmac(hmac(salted, 'Server Key'), authMessage).toString('base64');
    return `${withoutProof},p=${xor(clientKey, hmac(sha256(clientKey), authMessage)).toString('base64')}`;
  }

  /** @throws ScramError when the server did not prove that it knows the password too */
  verify(serverFinal: string): void {
    const given = Buffer.from(attribute(serverFinal, 'v'), 'base64');
    const expected = Buffer.from(this.#serverSignature, 'base64');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw new ScramError('the server could not prove that it knows the password');
    }
  }
}
