SET sql_mode = '';
CREATE TABLE types (
  id INT PRIMARY KEY,
  ti TINYINT, tu TINYINT UNSIGNED, si SMALLINT, su SMALLINT UNSIGNED, mi MEDIUMINT, mu MEDIUMINT UNSIGNED,
  ii INT, iu INT UNSIGNED, bi BIGINT, bu BIGINT UNSIGNED, bo BOOLEAN, zf INT(8) ZEROFILL,
  dc DECIMAL(10,2), dw DECIMAL(65,30), dz DECIMAL(5,0), du DECIMAL(20,9) UNSIGNED ZEROFILL,
  fl FLOAT, db DOUBLE, fm FLOAT(7,3), b1 BIT(1), b9 BIT(9), b64 BIT(64), yr YEAR,
  da DATE, dt DATETIME, dt1 DATETIME(1), dt3 DATETIME(3), dt6 DATETIME(6), ts TIMESTAMP NULL, ts2 TIMESTAMP(2) NULL, ts6 TIMESTAMP(6) NULL,
  tm TIME, tm1 TIME(1), tm4 TIME(4), tm6 TIME(6),
  ch CHAR(5), cl CHAR(255), vc VARCHAR(20), vl VARCHAR(300), la VARCHAR(20) CHARACTER SET latin1, cy VARCHAR(20) CHARACTER SET cp1251,
  uc VARCHAR(20) CHARACTER SET ucs2, u16 VARCHAR(20) CHARACTER SET utf16, u32 VARCHAR(20) CHARACTER SET utf32, u3 VARCHAR(20) CHARACTER SET utf8mb3,
  sj VARCHAR(20) CHARACTER SET sjis, ac VARCHAR(20) CHARACTER SET ascii,
  tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT,
  bn BINARY(4), vb VARBINARY(10), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
  en ENUM('a','b''c','é') CHARACTER SET latin1, st SET('x','y','z') , js JSON, ge GEOMETRY, po POINT,
  uu UUID, i6 INET6, i4 INET4, vg INT AS (id + 1) VIRTUAL, sg INT AS (id + 2) STORED, tc TEXT COMPRESSED, vcc VARCHAR(500) COMPRESSED, inv INT INVISIBLE
) CHARACTER SET utf8mb4;
INSERT INTO types (id) VALUES (1);
INSERT INTO types (id, ti, tu, si, su, mi, mu, ii, iu, bi, bu, bo, zf, dc, dw, dz, du, fl, db, fm, b1, b9, b64, yr, da, dt, dt1, dt3, dt6, ts, ts2, ts6,
  tm, tm1, tm4, tm6, ch, cl, vc, vl, la, cy, uc, u16, u32, u3, sj, ac, tt, tx, mt, lt, bn, vb, tb, bl, mb, lb, en, st, js, ge, po, uu, i6, i4, tc, vcc, inv)
VALUES (2, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, -9223372036854775808, 18446744073709551615, TRUE, 42,
  1.10, -12345678901234567890123456789012345.123456789012345678901234567890, -99999, 7.5, 0.1, 1e300, 1.5, b'1', b'101010101', 18446744073709551615, 2155,
  '9999-12-31', '9999-12-31 23:59:59', '2024-02-29 12:34:56.7', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789012', '2038-01-19 03:14:07',
  '2024-02-29 12:34:56.78', '2024-02-29 12:34:56.789012', '838:59:59', '-12:34:56.7', '-00:00:00.0001', '838:59:59.999999',
  'abc', REPEAT('é', 200), 'a"b\\c\n	é😀', REPEAT('ü', 300), 'café €', 'Привет', 'añ€', 'é😀', 'é😀', 'é€', 'テスト', 'plain',
  'tiny', 'text', 'medium', REPEAT('long', 100), 'a', X'00FF', X'01', X'', 'blob', REPEAT(X'00', 10), 'b''c', 'x,z', '{"b": [1.10, 12345678901234567890], "a" : null}',
  ST_GeomFromText('LINESTRING(0 0, 1 1)', 4326), ST_GeomFromText('POINT(1 2)'), '123e4567-e89b-12d3-a456-426655440000', '2001:db8::ff00:42:8329', '192.168.0.1',
  REPEAT('compress me ', 50), REPEAT('and me ', 40), 5);
INSERT INTO types (id, ti, bi, dc, dw, fl, db, fm, b1, b9, b64, yr, da, dt, dt6, ts, ts6, tm, tm1, tm4, tm6, ch, vc, bn, en, st, js, uu, i6, tc, vcc, du)
VALUES (3, 0, 0, -0.001, 0.000000000000000000000000000001, 16777217, -0.0, -2.125, b'0', b'0', 0, 0, '0000-00-00', '0000-00-00 00:00:00', '2024-00-00 00:00:00',
  '0000-00-00 00:00:00', '1970-01-01 00:00:01.000001', '-838:59:59', '00:00:00.9', '12:00:00.5', '-00:00:01.000001', '', '', '', 'nonsense', '', '"a\\u00e9 \\ud83d\\ude00"', '01234567-89ab-7def-8123-456789abcdef', '::ffff:1.2.3.4', '', 'short', 0);
INSERT INTO types (id, fl, db, dt, ts, js, uu, i6, st, i4, en) VALUES
  (4, 1e-10, 123456789.123, '1000-01-01 00:00:00', '2000-01-01 00:00:00', '[]', '00000000-0000-0000-0000-000000000000', '::', 'x,y,z', '0.0.0.0', 'é'),
  (5, 3.4028235e38, 5e-324, '2024-12-31 23:59:59', '2024-03-31 01:30:00', '  {"deep":{"er":[true,false,"x"]}}  ', 'ffffffff-ffff-4fff-bfff-ffffffffffff', 'fe80::1', 'y', '255.255.255.255', 'a');
