/**
 * One task: check what a client says it knows against the users of the configuration.
 *
 * An unknown user is asked for a password like any other, with a salt of its own that stays the same, and refused with
 * the same words after the same work.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { AuthType, Config, UserEntry } from '../config/config.js';
import { deriveVerifier, ITERATIONS, parseVerifier, passwordMatches, type Verifier } from './scram.js';

/** What may prove that a client is this user of this database. */
export interface Credentials {
  readonly known: boolean;
  readonly passwords: readonly string[];
  readonly verifiers: readonly Verifier[];
  /** md5(password + user), as PostgreSQL stores it behind `md5`; proves nothing in a SCRAM exchange */
  readonly md5?: string;
  /** salt and rounds announced in a SCRAM exchange */
  readonly shape: Pick<Verifier, 'salt' | 'iterations'>;
  /** the configured verifier, where there is no password that servers could be shown */
  readonly hash?: string;
}

const secret = randomBytes(32);

function saltOf(user: string): Buffer {
  return createHmac('sha256', secret).update(user).digest().subarray(0, 16);
}

/** Compares without telling by its time where two texts differ. */
export function same(left: string, right: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}

function md5(...parts: readonly (string | Buffer)[]): string {
  const hash = createHash('md5');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

/** Answers of the md5 method (PostgreSQL documentation, 54.2.1): `md5` + md5(md5(password + user) + salt). */
export function md5Answer(user: string, password: string, salt: Buffer): string {
  return answerByHash(md5(password, user), salt);
}

function answerByHash(hash: string, salt: Buffer): string {
  return `md5${md5(hash, salt)}`;
}

/** What stands behind `md5` in pg_authid.rolpassword; null: it is no such hash. */
function parseMd5(text: string): string | null {
  return /^md5([0-9a-f]{32})$/.exec(text)?.[1] ?? null;
}

type Entry = Pick<UserEntry, 'name' | 'database' | 'passwords' | 'passwordHash'>;

/** The credentials of a configuration, with the slow part of SCRAM done ahead. Replaced as a whole by apply(). */
export class CredentialStore {
  readonly #known = new Map<string, Promise<Credentials>>();
  readonly #byUser = new Map<string, Promise<Credentials>>();
  /** by all that they are made of */
  readonly #derived = new Map<string, Promise<Credentials>>();

  /** @param before what it replaces: whose password is the same there keeps what was derived, since a swap replaces it within a pause */
  constructor(config: Config, before?: CredentialStore) {
    const kept = before === undefined ? this.#derived : before.#derived;
    for (const entry of config.users) this.#add(entry, kept);
    const { user, name: database, password } = config.admin;
    this.#add({ name: user, database, passwords: [password] }, kept);
  }

  /**
   * Never rejects. Of an unknown user it gives credentials that nothing matches; of a known user with a database that is
   * not his, credentials with which he can prove himself before he is told so.
   */
  of(user: string, database: string): Promise<Credentials> {
    return this.#known.get(key(user, database)) ?? this.#byUser.get(user) ?? Promise.resolve(unknown(user));
  }

  #add(entry: Entry, kept: ReadonlyMap<string, Promise<Credentials>>): void {
    const { name: user, database, passwords, passwordHash } = entry;
    const made = JSON.stringify([user, passwords, passwordHash]);
    const credentials = this.#derived.get(made) ?? kept.get(made) ?? derive(user, passwords, passwordHash);
    this.#derived.set(made, credentials);
    this.#known.set(key(user, database), credentials);
    if (!this.#byUser.has(user)) this.#byUser.set(user, credentials);
  }
}

async function derive(user: string, passwords: readonly string[], hash: string | undefined): Promise<Credentials> {
  const stored = hash === undefined ? null : parseVerifier(hash);
  const md5Hash = hash === undefined ? null : parseMd5(hash);
  const shape = stored ?? { salt: saltOf(user), iterations: ITERATIONS };
  const derived = passwords.map((password) => deriveVerifier(password, shape.salt, shape.iterations));
  return {
    known: true,
    passwords,
    // Where there is only an md5 hash, the work is done all the same: time tells nothing.
    verifiers: [
      ...(stored === null ? [] : [stored]),
      ...(await Promise.all(derived)),
      ...(md5Hash === null ? [] : [nobody(shape)]),
    ],
    shape,
    ...(md5Hash !== null && { md5: md5Hash }),
    ...(hash !== undefined && (stored ?? md5Hash) !== null && passwords.length === 0 && { hash }),
  };
}

function key(user: string, database: string): string {
  return JSON.stringify([user, database]);
}

function unknown(user: string): Credentials {
  const shape = { salt: saltOf(user), iterations: ITERATIONS };
  return { known: false, passwords: [randomBytes(16).toString('hex')], verifiers: [nobody(shape)], shape };
}

/** A verifier that no password belongs to. */
function nobody(shape: Credentials['shape']): Verifier {
  return { ...shape, storedKey: randomBytes(32), serverKey: randomBytes(32) };
}

/** Checks a password sent in clear. */
export async function plainPasswordAccepted(credentials: Credentials, user: string, given: string): Promise<boolean> {
  const matches = await Promise.all(credentials.verifiers.map((verifier) => passwordMatches(given, verifier)));
  if (credentials.md5 !== undefined) matches.push(given !== '' && same(md5(given, user), credentials.md5));
  return matches.includes(true) && credentials.known;
}

/** Checks the answer to an md5 challenge; needs passwords or an md5 hash, a SCRAM verifier is of no use here. */
export function md5AnswerAccepted(credentials: Credentials, user: string, salt: Buffer, given: string): boolean {
  const matches = credentials.passwords.map((password) => same(md5Answer(user, password, salt), given));
  if (credentials.md5 !== undefined) matches.push(same(answerByHash(credentials.md5, salt), given));
  return matches.includes(true) && credentials.known;
}

/** The method a client has to use. The admin database keeps SCRAM where others use weaker ones. */
export function methodFor(config: Config, database: string): AuthType {
  const { authType } = config.general;
  return database === config.admin.name && authType !== 'trust' ? 'scram' : authType;
}
