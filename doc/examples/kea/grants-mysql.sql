GRANT SELECT ON kea.schema_version TO 'vmip'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON kea.hosts TO 'vmip'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON kea.ipv6_reservations TO 'vmip'@'%';
