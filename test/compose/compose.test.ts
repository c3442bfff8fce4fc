/** One task: hold docker-compose.yml, the Dockerfile and compose/ to each other and to the program, without containers. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import Ajv from 'ajv';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../../src/config/load.js';
import { composeFile, rawComposeFile, ROOT, service } from './compose-file.js';

const CONFIG = loadConfig({
  config: join(ROOT, 'compose/proxy/pgdog.toml'),
  users: join(ROOT, 'compose/proxy/users.toml'),
});

const PINNED = /^[a-z/-]+:\d+\.\d+(\.\d+)?(-[a-z-]+)?$/;

function schemaProblems(file: unknown): readonly string[] {
  const { $schema: _, ...schema } = JSON.parse(
    readFileSync(join(import.meta.dirname, 'compose-spec.json'), 'utf8'),
  ) as Record<string, unknown>;
  const validate = new Ajv({ unknownFormats: 'ignore', allErrors: true }).compile(schema);
  void validate(file);
  return (validate.errors ?? []).map((error) => `${error.dataPath} ${error.message ?? ''}`);
}

describe('docker-compose.yml', () => {
  test('is what the Compose specification allows, and a misspelt key would be seen', () => {
    expect(schemaProblems(rawComposeFile())).toEqual([]);
    expect(schemaProblems({ services: { proxy: { imgae: 'x' } } })).not.toEqual([]);
  });

  test('pins every image, so that it is the same tomorrow', () => {
    const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8');
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map((match) => match[1] ?? '');
    const images = Object.values(composeFile().services).map((each) => each.image);
    expect(bases.length).toBeGreaterThan(0);
    for (const image of [...images, ...bases]) expect(image).toMatch(PINNED);
    expect(new Set(bases).size).toBe(1);
  });

  test('names only services, volumes and paths that exist', () => {
    const { services, volumes } = composeFile();
    for (const each of Object.values(services)) {
      for (const name of Object.keys(each.depends_on)) expect(Object.keys(services)).toContain(name);
      for (const mount of each.volumes) {
        const [source = ''] = mount.split(':');
        if (source.startsWith('./')) expect(existsSync(join(ROOT, source)), source).toBe(true);
        else expect(Object.keys(volumes)).toContain(source);
      }
    }
  });

  test('waits for the health of services that have a health check', () => {
    const { services } = composeFile();
    for (const each of Object.values(services)) {
      for (const [name, { condition }] of Object.entries(each.depends_on)) {
        if (condition === 'service_healthy') expect(services[name]?.healthcheck, name).toBeDefined();
      }
    }
  });

  test('publishes ports on the loopback address only, none twice, none of a standing installation', () => {
    const published = Object.values(composeFile().services).flatMap((each) => each.ports);
    for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
    const ports = published.map((port) => Number(port.split(':')[1]));
    expect(new Set(ports).size).toBe(ports.length);
    expect(ports.filter((port) => [5432, 6432, 7233, 8233].includes(port))).toEqual([]);
  });

  test('moves between two different majors', () => {
    const majors = ['source', 'destination'].map((name) => /:(\d+)/.exec(service(name).image)?.[1]);
    expect(majors).toEqual(['17', '18']);
  });
});

describe('the proxy of docker-compose.yml', () => {
  test('reads files without an ignored key, from where the command says', () => {
    expect(CONFIG.warnings).toEqual([]);
    const mount = service('proxy').volumes[0]?.split(':')[1] ?? '';
    const { command } = service('proxy');
    expect(command).toEqual(['serve', '--config', `${mount}/pgdog.toml`, '--users', `${mount}/users.toml`]);
  });

  test('listens where its port is published, for others than its own container', () => {
    expect(CONFIG.general.host).toBe('0.0.0.0');
    expect(service('proxy').ports).toEqual([`127.0.0.1:16432:${CONFIG.general.port.toString()}`]);
    expect(readFileSync(join(ROOT, 'Dockerfile'), 'utf8')).toContain(`EXPOSE ${CONFIG.general.port.toString()}\n`);
  });

  test('knows its databases by the names, ports and passwords of their services', () => {
    for (const entry of CONFIG.databases) {
      const { environment, ports } = service(entry.host);
      expect(entry.databaseName).toBe(environment.POSTGRES_DB);
      expect(ports[0]?.split(':')[2]).toBe(entry.port.toString());
      const user = CONFIG.users.find((each) => each.database === entry.name);
      expect(user).toMatchObject({ name: environment.POSTGRES_USER, schemaAdmin: true });
      expect(user?.passwords).toEqual([environment.POSTGRES_PASSWORD]);
    }
    expect(CONFIG.databases.map((entry) => entry.name)).toEqual(['prod', 'prod_new']);
  });

  test('finds the Temporal server and its namespace', () => {
    const [host, port] = (CONFIG.temporal.address ?? '').split(':');
    expect(service(host ?? '').ports[0]?.split(':')[2]).toBe(port);
    const { environment } = service('temporal-namespace');
    expect(environment.TEMPORAL_ADDRESS).toBe(CONFIG.temporal.address);
    expect(environment.TEMPORAL_NAMESPACE).toBe(CONFIG.temporal.namespace);
    expect(service('temporal-ui').environment.TEMPORAL_ADDRESS).toBe(CONFIG.temporal.address);
  });

  test('shares that server with its health check, and with the ports that people are told of', () => {
    const port = (CONFIG.temporal.address ?? '').split(':')[1] ?? '';
    expect(service('temporal').healthcheck?.test).toEqual(['CMD', 'nc', '-z', 'localhost', port]);
    expect(service('temporal').environment.BIND_ON_IP, 'localhost of the container included').toBe('0.0.0.0');
    // The image serves its pages on 8080 unless TEMPORAL_UI_PORT says otherwise.
    const { environment, ports } = service('temporal-ui');
    expect(environment).not.toHaveProperty('TEMPORAL_UI_PORT');
    expect(ports).toEqual(['127.0.0.1:18233:8080']);
    const told = [...readFileSync(join(ROOT, 'docker-compose.yml'), 'utf8').matchAll(/^#.*127\.0\.0\.1:(\d+)/gm)];
    const published = [...ports, ...service('proxy').ports].map((each) => each.split(':')[1]);
    expect(new Set(told.map(([, number]) => number))).toEqual(new Set(published));
  });

  test('that server finds its dynamic configuration at the mount', () => {
    const { environment, volumes } = service('temporal');
    // Relative to the folder that the image works in.
    const path = join('/etc/temporal', environment.DYNAMIC_CONFIG_FILE_PATH ?? '');
    const [source = '', target = '', mode] = volumes[0]?.split(':') ?? [];
    expect(dirname(path)).toBe(target);
    expect(mode).toBe('ro');
    expect(parse(readFileSync(join(ROOT, source, basename(path)), 'utf8'))).toEqual({});
  });

  test('is given longer to stop than its clients to finish', () => {
    const graceMs = Number.parseInt(service('proxy').stop_grace_period ?? '0', 10) * 1_000;
    expect(graceMs).toBeGreaterThan(CONFIG.general.shutdownTimeoutMs);
  });
});

describe('the Dockerfile', () => {
  const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8');
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap((match) => match[1]?.split(' ') ?? []);

  test('copies only what exists and what .dockerignore lets through', () => {
    const allowed = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n');
    expect(copied.length).toBeGreaterThan(0);
    for (const path of copied) {
      expect(existsSync(join(ROOT, path)), path).toBe(true);
      expect(allowed).toContain(`!${path.replace('./', '')}`);
    }
  });

  test('copies every folder that the build compiles', () => {
    const { include } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.build.json'), 'utf8')) as { include: string[] };
    const isCopied = (path: string): boolean =>
      copied.some((folder) => path === folder || path.startsWith(`${folder}/`));
    expect(include.filter((path) => !isCopied(path))).toEqual([]);
  });

  test('starts the program that package.json names, by a Node that package.json allows', () => {
    const { bin, engines } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      bin: { cutover: string };
      engines: { node: string };
    };
    expect(dockerfile).toContain(`ENTRYPOINT ["node", "/opt/cutover/${bin.cutover}"]`);
    const [major, minor] = (/^FROM node:(\d+)\.(\d+)/m.exec(dockerfile) ?? []).slice(1).map(Number);
    const [majorMin, minorMin] = engines.node.replace('>=', '').split('.').map(Number);
    expect(major).toBe(majorMin);
    expect(minor).toBeGreaterThanOrEqual(minorMin ?? 0);
  });
});
