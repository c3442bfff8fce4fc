/** One task: how clients prove who they are: the same questions and the same words for everybody, keys passed on, bindings and certificates. */
import { createHash, randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import type { AuthType, Config, GeneralConfig, UserEntry } from '../../src/config/config.js';
import { connect } from '../../src/postgres/connection.js';
import { scramVerifier } from '../../src/postgres/scram-verifier.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { CredentialStore, plainPasswordAccepted } from '../../src/proxy/credentials.js';
import { channelBinding } from '../../src/proxy/channel-binding.js';
import { MECHANISM, MECHANISM_PLUS, ScramClient, ScramServer } from '../../src/proxy/scram.js';
import { HEADER_BYTES } from '../../src/wire/frames.js';
import { passwordMessage, saslInitialResponse, saslResponse, startupMessage } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { clientOf, configFor, endLater, proxyFor, RawClient, USER } from './support.js';
import { authority, certified, fileOf, offered, stranger } from './tls-support.js';

const clusters = useClusters({ main: { major: 18, auth: 'scram' } });
let databaseName = '';

interface Overrides {
  readonly general?: Partial<GeneralConfig>;
  readonly user?: Partial<UserEntry>;
  readonly tls?: Config['tls'];
}

async function configOf({ tls, ...overrides }: Overrides): Promise<Config> {
  databaseName ||= await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], overrides);
  return { ...config, ...(tls && { tls }) };
}

async function start(overrides: Overrides): Promise<Proxy> {
  return proxyFor({ config: await configOf(overrides) });
}

/** Everything a client is told until it is closed, without what is random or its own name. */
async function transcript(proxy: Proxy, user: string, database: string): Promise<string[]> {
  const raw = new RawClient(proxy);
  raw.send(startupMessage({ user, database }));
  const heard: string[] = [];
  const scram = new ScramClient([MECHANISM], null);
  while (!raw.closed) {
    const messages = await raw.until(raw.messages.some(({ type }) => type === 'E') ? 'E' : 'R').catch(() => []);
    for (const { type, bytes } of messages.length > 0 ? messages : raw.messages.splice(0)) {
      const text = bytes.toString('latin1', HEADER_BYTES).replaceAll(user, '<user>');
      heard.push(
        type + text.replace(/^(\0\0\0\x05).{4}$/s, '$1<salt>').replace(/[\w+/=]{20,}/g, (one) => String(one.length)),
      );
      if (type === 'E') return heard;
      const question = bytes.readInt32BE(HEADER_BYTES);
      if (question === 3 || question === 5) raw.send(passwordMessage('wrong'));
      else if (question === 10) raw.send(saslInitialResponse(MECHANISM, scram.first));
      else raw.send(saslResponse(await scram.answer(bytes.toString('utf8', HEADER_BYTES + 4), 'wrong')));
    }
  }
  return heard;
}

test.each(['scram', 'md5', 'plain', 'passthrough'] as const)(
  'with %s a wrong user and a wrong password hear the same, in the same order',
  async (how) => {
    const authType: AuthType = how === 'passthrough' ? 'scram' : how;
    const passthroughAuth = how === 'passthrough' ? 'enabled_plain' : 'disabled';
    const proxy = await start({ general: { authType, passthroughAuth } });
    const wrongPassword = await transcript(proxy, USER, 'prod');
    expect(wrongPassword.length).toBe(how === 'scram' ? 3 : 2);
    expect(wrongPassword.at(-1)).toContain('28P01');
    expect(await transcript(proxy, 'nobody_here', 'prod')).toEqual(wrongPassword);
    expect(await transcript(proxy, USER, 'missing')).toEqual(wrongPassword);
    expect(await transcript(proxy, 'nobody_here', 'missing')).toEqual(wrongPassword);
  },
);

test('the same work is done for an unknown user as for a known one with one password', async () => {
  const store = new CredentialStore(await configOf({}));
  const [known, unknown] = await Promise.all([store.of(USER, 'prod'), store.of('nobody_here', 'prod')]);
  for (const { passwords, verifiers, shape } of [known, unknown]) {
    expect([passwords.length, verifiers.length, shape.iterations, shape.salt.length]).toEqual([1, 1, 4096, 16]);
    expect(verifiers[0]).toMatchObject({ salt: shape.salt, iterations: shape.iterations });
  }
  expect([known.known, unknown.known]).toEqual([true, false]);
});

test('what was derived for a user is kept through a swap of the configuration, for as long as it is the same', async () => {
  const config = await configOf({});
  const store = new CredentialStore(config);
  const derived = await store.of(USER, 'prod');
  const next = new CredentialStore(config, store);
  expect(await next.of(USER, 'prod')).toBe(derived);
  expect(await next.of(USER, 'missing')).toBe(derived);
  const changed = { ...config, users: config.users.map((user) => ({ ...user, passwords: ['another one'] })) };
  const after = await new CredentialStore(changed, next).of(USER, 'prod');
  expect(after.passwords).toEqual(['another one']);
  expect(await plainPasswordAccepted(after, USER, 'another one')).toBe(true);
  for (const password of derived.passwords) expect(await plainPasswordAccepted(after, USER, password)).toBe(false);
  expect((await new CredentialStore({ ...config, users: [] }, next).of(USER, 'prod')).known).toBe(false);
});

test.each(['scram', 'plain'] as const)(
  'with %s what proves a password_hash is passed on to the server',
  async (authType) => {
    const name = `carried_by_${authType}`;
    const passwordHash = scramVerifier('only hashed');
    await clusters.main.query('postgres', `CREATE ROLE ${name} LOGIN PASSWORD '${passwordHash}'`);
    const withHash = async (hash: string): Promise<Proxy> => {
      const config = await configOf({ general: { authType }, user: { name, passwords: [], passwordHash: hash } });
      const databases = config.databases.map(({ password: _password, ...entry }) => entry);
      return proxyFor({ config: { ...config, databases } });
    };
    const proxy = await withHash(passwordHash);
    await expect(clientOf(proxy, 'prod', { user: name, password: 'wrong' })).rejects.toMatchObject({ code: '28P01' });
    for (let turn = 0; turn < 2; turn += 1) {
      const client = await clientOf(proxy, 'prod', { user: name, password: 'only hashed' });
      expect((await client.query('SELECT current_user AS who')).rows).toEqual([{ who: name }]);
      proxy.reconnect();
      proxy.apply(proxy.config);
      expect((await client.query('SELECT current_user AS who')).rows).toEqual([{ who: name }]);
    }
    const another = await withHash(scramVerifier('only hashed', randomBytes(16)));
    const problem = await clientOf(another, 'prod', { user: name, password: 'only hashed' })
      .then(async (client) => client.query('SELECT current_user AS who'))
      .catch((error: unknown) => error);
    // A password fits every verifier of it; keys only the one they were proven for.
    if (authType === 'plain') expect(problem).toMatchObject({ rows: [{ who: name }] });
    else
      expect(problem).toMatchObject({
        code: '08006',
        message: expect.stringMatching(/another SCRAM verifier/) as unknown,
      });
    expect(JSON.stringify(problem)).not.toContain('only hashed');
  },
);

test('over TLS a login is bound to the certificate, by node-postgres and by libpq, and cannot be unbound on the way', async () => {
  const proxy = await start({ general: { authType: 'scram' }, tls: offered() });
  const bound = await clientOf(proxy, 'prod', {
    ssl: { ca: authority.certificatePem },
    enableChannelBinding: true,
  });
  expect((await bound.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  const libpq = await connect(clusters.main.endpoint(await freshDatabase(clusters.main)));
  endLater(() => libpq.end());
  await libpq.query('SET search_path = public; CREATE EXTENSION dblink');
  const { host, port } = proxy.address;
  const target = `host=${host} port=${port.toString()} dbname=prod user=${USER} channel_binding=require`;
  const over = (sslmode: string): Promise<unknown> =>
    libpq.query('SELECT dblink_connect($1)', [`${target} sslmode=${sslmode} password='client secret'`]);
  await over('require');
  await expect(over('disable')).rejects.toMatchObject({ detail: expect.stringMatching(/channel binding/) as unknown });

  const binding = channelBinding(certified.proxy.certificatePem);
  const raw = Buffer.from(certified.proxy.certificatePem.split('-----')[2] ?? '', 'base64');
  expect(binding).toEqual(createHash('sha256').update(raw).digest());
  const shape = { salt: randomBytes(16), iterations: 4096 };
  const begin = (mechanism: string, header: string, offer = binding): unknown =>
    new ScramServer(mechanism, `${header}n=*,r=nonce`, offer, shape);
  expect(begin(MECHANISM_PLUS, 'p=tls-server-end-point,,')).toBeDefined();
  expect(() => begin(MECHANISM, 'y,,')).toThrow(/taken away/);
  expect(() => begin(MECHANISM_PLUS, 'n,,')).toThrow(/does not belong/);
  expect(() => begin(MECHANISM_PLUS, 'p=tls-unique,,')).toThrow(/does not belong/);
  expect(() => begin(MECHANISM, 'p=tls-server-end-point,,')).toThrow(/does not belong/);
  expect(begin(MECHANISM, 'y,,', null)).toBeDefined();
});

test('a certificate with the name of identity takes the place of a password, and no other does', async () => {
  const tls = offered({ tls_client_ca_certificate: fileOf('authority').certificate });
  const named = authority.issue('anybody', ['client']);
  const other = authority.issue('client', ['somebody-else']);
  const wildcard = authority.issue('anybody', ['*', '*.client']);
  const login = async (
    proxy: Proxy,
    { certificatePem: cert, keyPem: key }: typeof named,
    password = 'wrong',
  ): Promise<unknown> => {
    const ssl = { ca: authority.certificatePem, cert, key };
    return (await (await clientOf(proxy, 'prod', { ssl, password })).query('SELECT 1 AS one')).rows;
  };
  const proxy = await start({ general: { authType: 'scram' }, user: { identity: 'client' }, tls });
  expect(await login(proxy, certified.client)).toEqual([{ one: 1 }]);
  expect(await login(proxy, named)).toEqual([{ one: 1 }]);
  for (const certificate of [other, wildcard])
    await expect(login(proxy, certificate)).rejects.toMatchObject({ code: '28P01' });
  expect(await login(proxy, other, 'client secret')).toEqual([{ one: 1 }]);
  const forged = stranger.issue('client', ['client']);
  await expect(login(proxy, forged)).rejects.toMatchObject({ code: '28000' });
  const only = await start({ general: { authType: 'scram' }, user: { identity: 'client', passwords: [] }, tls });
  expect(await login(only, named)).toEqual([{ one: 1 }]);
  await expect(login(only, other)).rejects.toMatchObject({ code: '28P01' });
});
