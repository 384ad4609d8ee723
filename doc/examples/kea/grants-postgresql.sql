GRANT SELECT ON schema_version TO vmip;
GRANT SELECT, INSERT, UPDATE, DELETE ON hosts, ipv6_reservations TO vmip;
GRANT USAGE ON SEQUENCE hosts_host_id_seq TO vmip;
GRANT USAGE ON SEQUENCE ipv6_reservations_reservation_id_seq TO vmip;
