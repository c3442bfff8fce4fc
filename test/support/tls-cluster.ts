/** One task: turn TLS of a test's PostgreSQL cluster on and off. */
import { chownSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { writeCertificate, type Certificate } from './certificates.js';
import { until } from './wait.js';

/** The server shows `certificate` from now on, and checks those of clients by `authority`; null: it offers no TLS. */
export async function setTls(
  cluster: Cluster,
  certificate: Certificate | null,
  authority?: Certificate,
): Promise<void> {
  const data = join(cluster.directory, 'data');
  const settings: Record<string, string> = { ssl: certificate === null ? 'off' : 'on' };
  for (const shown of [certificate, authority ?? null]) {
    if (shown === null) continue;
    const files = writeCertificate(data, shown);
    const { uid, gid } = statSync(data);
    for (const file of [files.certificate, files.key]) chownSync(file, uid, gid);
    if (shown === authority) settings.ssl_ca_file = files.certificate;
    else Object.assign(settings, { ssl_cert_file: files.certificate, ssl_key_file: files.key });
  }
  for (const [name, value] of Object.entries(settings))
    await cluster.query('postgres', `ALTER SYSTEM SET ${name} = '${value}'`);
  await cluster.query('postgres', 'SELECT pg_reload_conf()');
  await until('the server has read its settings', async () => {
    const [row] = await cluster.query<{ ssl: string }>('postgres', 'SHOW ssl');
    return row?.ssl === settings.ssl;
  });
}
